// Parts that close-ups are made of: pictures with a window on them, grids of numbers, rows of channels, verdicts.

import { channel } from "./data.js";
import { exact, fill, make, medium, short, unit } from "./dom.js";
import { colour, css, inkOn, paintMap, scaleOf } from "./paint.js";

const pointer = { held: false };

/** Hold the place that is looked at, so that the pointer may move on; or let it follow the pointer again. */
export function hold(held) {
  pointer.held = held;
  for (const hint of document.querySelectorAll(".hint")) fill(hint, holding());
}

export const holding = () =>
  pointer.held ? "Held here; click into the frame again to let it follow the pointer." : "Click to hold the frame.";

/** A map as a picture. `pick(i, j)` is called with the place under the pointer; `mark` frames a place. */
export function picture({ title, label, pick = null, hatched = false }) {
  const canvas = make("canvas", { role: "img", "aria-label": label ?? title });
  const marks = make("div", { class: "marks" });
  const frame = make("div", { class: hatched ? "frame hatched" : "frame" }, canvas, marks);
  const heading = make("figcaption", {}, title);
  const legend = make("p", { class: "legend" });
  const element = make("figure", { class: pick ? "map picked" : "map" }, heading, frame, legend);
  if (pick) {
    let last = "";
    const at = (event) => {
      const box = frame.getBoundingClientRect();
      const i = Math.floor(((event.clientY - box.top) / box.height) * canvas.height);
      const j = Math.floor(((event.clientX - box.left) / box.width) * canvas.width);
      return [Math.max(0, Math.min(canvas.height - 1, i)), Math.max(0, Math.min(canvas.width - 1, j))];
    };
    frame.addEventListener("pointermove", (event) => {
      if (event.pointerType === "mouse" && !pointer.held) pick(...at(event));
    });
    frame.addEventListener("pointerdown", (event) => {
      hold(!(pointer.held && last === String(at(event))));
      last = String(at(event));
      pick(...at(event));
    });
  }
  return {
    element,
    frame,
    retitle(text) {
      fill(heading, text);
      canvas.setAttribute("aria-label", text);
    },
    paint(values, height, width, { palette = "values", pad = [0, 0, 0, 0], scale = scaleOf(values) } = {}) {
      paintMap(canvas, values, height, width, scale, palette, pad);
      const ratio = canvas.width / canvas.height;
      frame.style.aspectRatio = String(ratio);
      frame.style.setProperty("--ratio", ratio);
      fill(legend, bar(palette), ` −${short(scale)} to ${short(scale)}`);
    },
    /** Frame `height` x `width` pixels from `row`, `column` on; several marks are told apart by their kind. */
    mark(kind, row, column, height, width) {
      let one = marks.querySelector(`.${kind}`);
      if (!one) {
        one = make("div", { class: `mark ${kind}` });
        marks.append(one);
      }
      one.hidden = row === null;
      if (row === null) return;
      one.style.left = `${(100 * column) / canvas.width}%`;
      one.style.top = `${(100 * row) / canvas.height}%`;
      one.style.width = `${(100 * width) / canvas.width}%`;
      one.style.height = `${(100 * height) / canvas.height}%`;
    },
  };
}

function bar(palette) {
  const ends = [-1, -0.5, 0, 0.5, 1].map((share) => css(colour(share, palette)));
  return make("span", { class: "bar", style: `background: linear-gradient(90deg, ${ends.join(", ")})` });
}

const MOST_NUMBERS = 64;
const MOST_CELLS = 400;
const narrow = matchMedia("(max-width: 620px)");

/** The text of a number, without the 0 before the point where there is little room. */
const tight = (text) => (narrow.matches ? text.replace(/^(−?)0\./, "$1.") : text);

/** A grid of numbers on their colours; null is a place in the padding. `pick(row, column)` is called by clicks. */
export function grid({ title, pick = null }) {
  const heading = make("figcaption", {}, title);
  let name = title;
  const cells = make("div", { class: "cells" });
  const element = make("figure", { class: "grid" }, heading, cells);
  return {
    element,
    retitle: (text) => {
      name = text;
    },
    paint(values, height, width, { palette = "values", scale = null, chosen = -1 } = {}) {
      const known = values.filter((number) => number !== null);
      const most = scale ?? scaleOf(known);
      const written = width <= 8 && height * width <= MOST_NUMBERS;
      const [factor, words] = unit(values);
      fill(heading, name, written ? words : "");
      cells.style.setProperty("--columns", width);
      cells.classList.toggle("dense", !written);
      cells.classList.toggle("wide", width > 5);
      cells.classList.toggle("narrow", width <= 3);
      if (!pick && height * width > MOST_CELLS) {
        const canvas = make("canvas", { role: "img", "aria-label": name });
        paintMap(
          canvas,
          Float64Array.from(values, (number) => number ?? 0),
          height,
          width,
          most,
          palette,
        );
        fill(cells, canvas);
        return;
      }
      fill(
        cells,
        values.map((number, index) => {
          const back = number === null ? null : colour(number / most, palette);
          const cell = make(pick ? "button" : "div", {
            class: number === null ? "cell padding" : index === chosen ? "cell chosen" : "cell",
            title: number === null ? "padding" : exact(number),
            style: back && `background: ${css(back)}; color: ${inkOn(back)}`,
            type: pick && "button",
            tabindex: pick && index !== Math.max(0, chosen) ? "-1" : null,
            "aria-label": pick && `row ${Math.floor(index / width)}, column ${index % width}: ${exact(number ?? 0)}`,
            onclick: pick && (() => pick(Math.floor(index / width), index % width)),
          });
          if (written) cell.textContent = number === null ? "·" : tight(short(number / factor));
          return cell;
        }),
      );
    },
  };
}

/** What a channel is called: its number in the layer, or its colour in an image of three. */
export const nameOf = (node, k) =>
  node.view === "input" && node.y.count === 3 ? ["red", "green", "blue"][k] : String(channel(node, k));

function reveal(button, row) {
  row.scrollLeft = Math.max(0, button.offsetLeft - row.offsetLeft - row.clientWidth / 2 + button.clientWidth / 2);
}

/** A row of small pictures to choose from, with bars below them; arrow keys choose when it has the focus. */
export function chooser({ title, node, count, choose, note = "", name = (k) => nameOf(node, k) }) {
  const words = make("span");
  const heading = make("h3", {}, title, words);
  const row = make("div", { class: "chooser", role: "radiogroup", "aria-label": title });
  const items = Array.from({ length: count }, (_, k) => {
    const canvas = make("canvas", { "aria-hidden": "true" });
    const amount = make("span", { class: "amount" });
    const button = make(
      "button",
      { type: "button", role: "radio", class: "item", onclick: () => choose(k) },
      canvas,
      make("span", { class: "number" }, name(k)),
      amount,
    );
    row.append(button);
    return { button, canvas, amount };
  });
  row.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const at = items.findIndex((item) => item.button === document.activeElement);
    if (!step || at < 0 || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation();
    const next = (at + step + count) % count;
    choose(next);
    items[next].button.focus();
  });
  let selected = -1;
  return {
    element: make("section", { class: "choosing" }, heading, note && make("p", { class: "soft" }, note), row),
    select(k) {
      if (selected === k) return;
      selected = k;
      items.forEach(({ button }, index) => {
        button.setAttribute("aria-checked", String(index === k));
        button.tabIndex = index === k ? 0 : -1;
      });
      requestAnimationFrame(() => reveal(items[k].button, row));
    },
    paint(draw) {
      items.forEach(({ canvas }, k) => void draw(canvas, k));
    },
    /** Show what each channel adds, as bars and numbers. */
    amounts(values, palette = "values") {
      const scale = scaleOf(values);
      const [factor, power] = unit(Array.from(values));
      fill(words, power);
      items.forEach(({ amount, button }, k) => {
        const share = Math.min(1, Math.abs(values[k]) / scale);
        const end = css(colour(Math.sign(values[k]) * 0.9, palette));
        amount.style.background = `linear-gradient(${end}, ${end}) ${values[k] < 0 ? "100%" : "0"} 100% / ${share * 100}% 4px no-repeat`;
        amount.textContent = short(values[k] / factor);
        button.title = exact(values[k]);
      });
    },
  };
}

/** Two values side by side: this page's and NumPy's, whether they agree, and how far they may be apart. */
export function verdict(found, { name = "" } = {}) {
  if (!found) {
    return make(
      "p",
      { class: "verdict unknown" },
      "The page does not know this formula, and cannot recompute the number.",
    );
  }
  const rule = found.count
    ? `they differ by ${medium(found.difference)}; rounding in another order allows ${medium(found.bound)}`
    : "no rounding here: they have to be equal";
  return make(
    "p",
    { class: found.agrees ? "verdict agrees" : "verdict differs", "data-name": name },
    make("span", { class: "sign", "aria-hidden": "true" }, found.agrees ? "✓" : "✗"),
    make("span", {}, "this page ", make("output", { class: "value" }, exact(found.value))),
    make("span", {}, "NumPy ", make("output", { class: "numpy" }, exact(found.numpy))),
    make("span", { class: "rule" }, `${found.agrees ? "they agree" : "THEY DO NOT AGREE"} — ${rule}`),
  );
}

/** A line of arithmetic: numbers on their colours with names below, and signs between them. */
export function line(...terms) {
  return make(
    "div",
    { class: "line" },
    terms
      .filter((term) => term !== null)
      .map((term) => {
        if (typeof term === "string") return make("span", { class: "operator" }, term);
        const { value, name, palette = null, scale = 1 } = term;
        const back = palette && colour(value / scale, palette);
        return make(
          "span",
          { class: "term", title: exact(value) },
          make("b", { style: back && `background: ${css(back)}; color: ${inkOn(back)}` }, medium(value)),
          make("small", {}, name),
        );
      }),
  );
}
