// Parts that close-ups are made of: pictures with a window on them, grids of numbers, rows of channels, verdicts.

import { channel, colourOf } from "./data.js";
import { brief, exact, fill, make, medium, short, unit, widthOf } from "./dom.js";
import { colour, css, inkOn, paintMap, scaleOf } from "./paint.js";

let held = false;

/** Hold the frame where it is, so that the pointer may move on; or let it follow the pointer again. */
export function hold(now) {
  held = now;
  document.documentElement.toggleAttribute("data-held", held);
  for (const hint of document.querySelectorAll(".hint .mouse")) fill(hint, holding());
}

const holding = () =>
  held
    ? "The frame is held. Click elsewhere to move it, or into it to let it follow the pointer again."
    : "The frame follows the pointer. Click to hold it.";

/** What a pointer does to the frame in pictures, and what a finger does. */
export const hint = () =>
  make(
    "p",
    { class: "hint" },
    make("span", { class: "mouse" }, holding()),
    make("span", { class: "touch" }, "Tap a picture to move the frame."),
  );

/** A map as a picture. `pick(i, j)` is called with the place under the pointer, and returns whether the frame moved;
 * `mark` frames a place. */
export function picture({ title, label, pick = null, hatched = false }) {
  const canvas = make("canvas", { role: "img", "aria-label": label ?? title });
  const marks = make("div", { class: "marks" });
  const frame = make("div", { class: hatched ? "frame hatched" : "frame" }, canvas, marks);
  const heading = make("figcaption", {}, title);
  const legend = make("p", { class: "legend" });
  const element = make("figure", { class: pick ? "map picked" : "map" }, heading, frame, legend);
  if (pick) {
    const at = (event) => {
      const box = frame.getBoundingClientRect();
      const i = Math.floor(((event.clientY - box.top) / box.height) * canvas.height);
      const j = Math.floor(((event.clientX - box.left) / box.width) * canvas.width);
      return [Math.max(0, Math.min(canvas.height - 1, i)), Math.max(0, Math.min(canvas.width - 1, j))];
    };
    frame.addEventListener("pointermove", (event) => {
      if (event.pointerType === "mouse" && !held) pick(...at(event));
    });
    frame.addEventListener("click", (event) => hold(pick(...at(event)) || !held));
  }
  return {
    element,
    frame,
    retitle(text) {
      fill(heading, text);
      canvas.setAttribute("aria-label", text);
    },
    paint(values, height, width, { palette = "values", pad = [0, 0, 0, 0], scale = scaleOf(values), range } = {}) {
      paintMap(canvas, values, height, width, scale, palette, pad);
      const ratio = canvas.width / canvas.height;
      frame.style.aspectRatio = String(ratio);
      frame.style.setProperty("--ratio", ratio);
      fill(legend, ...legendOf(range ?? rangeOf(values), scale, palette));
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

function rangeOf(values) {
  let [low, high] = [Infinity, -Infinity];
  for (const number of values) {
    low = Math.min(low, number);
    high = Math.max(high, number);
  }
  return [low, high];
}

/** The colours of the numbers that there are, and which numbers those at both ends stand for. */
function legendOf([low, high], scale, palette) {
  if (low === high) return [make("span", {}, `${brief(low)} everywhere`)];
  const ends = [Math.max(low, -scale), Math.min(high, scale)];
  const steps = [0, 0.2, 0.4, 0.6, 0.8, 1].map((part) => ends[0] + part * (ends[1] - ends[0]));
  if (ends[0] < 0 && ends[1] > 0) steps.push(0);
  const stops = steps
    .sort((a, b) => a - b)
    .map((at) => `${css(colour(at / scale, palette))} ${(100 * (at - ends[0])) / (ends[1] - ends[0])}%`);
  return [
    make("span", {}, `${low < ends[0] ? "≤ " : ""}${brief(ends[0])}`),
    make("span", { class: "bar", style: `background: linear-gradient(90deg, ${stops.join(", ")})` }),
    make("span", {}, `${high > ends[1] ? "≥ " : ""}${brief(ends[1])}`),
  ];
}

const MOST_NUMBERS = 64;
const MOST_CELLS = 400;
const narrow = matchMedia("(max-width: 620px)");

/** The text of a number, without the 0 before the point where there is little room. */
const tight = (text, columns) => (narrow.matches || columns > 5 ? text.replace(/^(−?)0\./, "$1.") : text);

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
      const texts = values.map((number) => (number === null ? "·" : tight(short(number / factor), width)));
      element.style.setProperty("--columns", width);
      element.style.setProperty(
        "--letters",
        written ? Math.max(...[tight("−0.000", width), ...texts].map(widthOf)) : 0,
      );
      cells.classList.toggle("dense", !written);
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
          if (written) cell.textContent = texts[index];
          return cell;
        }),
      );
    },
  };
}

function reveal(button, row) {
  row.scrollLeft = Math.max(0, button.offsetLeft - row.offsetLeft - row.clientWidth / 2 + button.clientWidth / 2);
}

/** Grids side by side; a sign stays with the grid after it where they need two rows. */
export const beside = (grids, signs = []) =>
  make(
    "div",
    { class: "grids" },
    grids.map(({ element }, index) =>
      make(
        "div",
        { class: "signed" },
        signs[index - 1] && make("span", { class: "operator" }, signs[index - 1]),
        element,
      ),
    ),
  );

/** A row of small pictures to choose from, with bars below them; arrow keys choose when it has the focus. */
export function chooser({
  title,
  node,
  count,
  choose,
  note = "",
  name = (k) => colourOf(node, k) ?? channel(node, k),
}) {
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
      make("span", { class: "number" }, String(name(k))),
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

/** Two values side by side: this page's and NumPy's, whether they agree, and how far they may be apart.
 *
 * Where there are several, `of` says what they are. */
export function verdict(found, { name = "", of = "" } = {}) {
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
    of && make("span", { class: "of" }, of),
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
