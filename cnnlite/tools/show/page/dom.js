// Elements, and numbers as text.

/** Make an element: `make("p", { class: "soft", onclick: f }, "text", other)`; null children are left out. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...present(children));
  return element;
}

const present = (children) =>
  children.flat().filter((child) => child !== null && child !== undefined && child !== false);

export function fill(element, ...children) {
  element.replaceChildren(...present(children));
}

/** A power of ten to give small or large numbers in, so that cells have digits to show: [factor, words]. */
export function unit(values) {
  const most = Math.max(0, ...values.map((value) => Math.abs(value ?? 0)));
  if (most === 0 || (most >= 0.05 && most < 1000)) return [1, ""];
  const power = Math.floor(Math.log10(most));
  return [10 ** power, `, in 10${superscript(power)}`];
}

const superscript = (power) => Array.from(String(power), (letter) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[letter] ?? "⁻").join("");

const minus = (text) => text.replace("e+", "e").replaceAll("-", "−");

/** A number for a small cell: about three digits. */
export function short(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (!Number.isFinite(value)) return String(value);
  if (size >= 10000 || size < 0.001) return minus(value.toExponential(size < 0.001 ? 0 : 1));
  if (size >= 100) return minus(value.toFixed(0));
  return minus(value.toFixed(size >= 10 ? 1 : size >= 1 ? 2 : 3));
}

const measure = document.createElement("canvas").getContext("2d");

/** How wide a text is, in the font of the page: in times the size of its letters. */
export function widthOf(text) {
  measure.font = `100px ${getComputedStyle(document.body).fontFamily}`;
  return measure.measureText(text).width / 100;
}

/** A number as exactly as float32 has it: nine digits. */
export function exact(value) {
  if (value === 0 || !Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  return minus(size >= 1e7 || size < 1e-4 ? value.toExponential(8) : value.toPrecision(9));
}

/** A number beside a picture: three digits. */
export const brief = (value) => minus(String(Number(value.toPrecision(3))));

/** A number in a sentence: four digits. */
export function medium(value) {
  if (value === 0 || !Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  return minus(size >= 1e5 || size < 1e-3 ? value.toExponential(2) : value.toPrecision(4));
}

export const percent = (value) => `${(100 * value).toFixed(value > 0 && value < 0.001 ? 3 : 1)} %`;

export const whole = (value) => value.toLocaleString("en");

/** All but one, in words: `the other channel`, `the 5 other channels`. */
export const others = (count, name) => (count === 1 ? `the other ${name}` : `the ${whole(count)} other ${name}s`);

export const times = (...sides) => sides.join(" × ");
