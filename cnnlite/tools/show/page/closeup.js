// One layer up close: its view, the place that is looked at, and the keys that move it.

import { forward, weightOrNull } from "./arithmetic.js";
import { convolutionForward } from "./convolution.js";
import { facts, nodes, parameter, source } from "./data.js";
import { fill, make } from "./dom.js";
import { ends } from "./ends.js";
import { linear } from "./matrix.js";
import { about, shapeOf } from "./overview.js";
import { hint, hold } from "./parts.js";
import { pointwise } from "./pointwise.js";
import { pixelBackward, weightBackward } from "./returns.js";
import { flatten, generic, join } from "./shapes.js";
import { poolForward } from "./windows.js";

const views = {
  convolution: (node, state, change, gradients) => {
    if (!gradients) return convolutionForward(node, state, change);
    return (state.way === "weight" ? weightBackward : pixelBackward)(node, state, change);
  },
  linear,
  flatten,
  sum: join,
  concat: join,
  multiply: join,
  ends,
  generic,
};
for (const view of ["max", "average", "mean"]) {
  views[view] = (node, state, change, gradients) => (gradients ? pixelBackward : poolForward)(node, state, change);
}
for (const view of ["norm", "activation", "dropout", "scale", "input"]) views[view] = pointwise;

const places = new Map();

const ofGreatest = (values) =>
  values.reduce((best, number, index) => (Math.abs(number) > Math.abs(values[best]) ? index : best), 0);
const sizesOf = ({ count, one }) =>
  Array.from({ length: count }, (_, k) => one(k).reduce((sum, number) => sum + Math.abs(number), 0));

/** How much more the numbers of each map differ from their mean than from zero: what there is to see in it. */
const contrastsOf = ({ count, one, height, width }) =>
  Array.from({ length: count }, (_, k) => {
    const total = one(k).reduce((sum, number) => sum + number, 0);
    const mean = total / (height * width);
    return Math.max(0, one(k).reduce((sum, number) => sum + Math.abs(number - mean), 0) - Math.abs(total));
  });

/** The place to start at: where numbers are large, or differ most, so that there is something to see. */
function start(node, gradients) {
  const found = (gradients && node.dy) || node.y;
  const { height, width } = found;
  const isEnd = node.view === "ends" || node.number === facts.last;
  const k = isEnd ? facts.target : ofGreatest(height * width > 1 ? contrastsOf(found) : sizesOf(found));
  const state = { k, c: 0, i: Math.floor(height / 2), j: Math.floor(width / 2), row: 0, column: 0, way: "weight" };
  if (gradients) {
    const at = ofGreatest(found.one(k));
    Object.assign(state, { i: Math.floor(at / width), j: at % width });
  }
  if (node.view === "ends") return { ...state, i: k, j: 0 };
  if (node.view === "linear") return { ...state, i: k, j: ofGreatest(forward(node, k, 0, 0).parts) };
  if (node.view === "convolution" && gradients && parameter(node, "dweight")) {
    const [rows, columns] = node.windows.kernel;
    let greatest = -1;
    for (let place = 0; place < source(node).y.count * rows * columns; place++) {
      const [c, row, column] = [
        Math.floor(place / (rows * columns)),
        Math.floor(place / columns) % rows,
        place % columns,
      ];
      const slope = weightOrNull(node, k, c, row, column, "dweight");
      if (slope === null || Math.abs(slope) <= greatest) continue;
      greatest = Math.abs(slope);
      Object.assign(state, { c, row, column });
    }
    return state;
  }
  if (node.view === "convolution") return { ...state, c: ofGreatest(forward(node, k, state.i, state.j).parts) };
  if (!node.inputs.length) return { ...state, c: k };
  const taken = (gradients && source(node).dy) || source(node).y;
  const moves = ["flatten", "generic"].includes(node.view);
  const c = moves ? ofGreatest(sizesOf(taken)) : k;
  const pools = ["max", "average", "mean"].includes(node.view);
  const shown = node.view === "flatten" || (pools && gradients) ? taken : pools ? found : null;
  if (!shown) return { ...state, c };
  // A pooling whose window is 0 everywhere would not show who wins.
  const strength =
    pools && gradients ? shown.one(c).map((number, place) => number * source(node).y.one(c)[place]) : shown.one(c);
  const at = ofGreatest(strength);
  return { ...state, c, i: Math.floor(at / shown.width), j: at % shown.width };
}

const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

export function closeup(node, mode, go) {
  const gradients = mode === "gradients";
  const place = `${node.number} ${mode}`;
  if (!places.has(place)) places.set(place, start(node, gradients));
  const state = places.get(place);
  const body = make("div", { class: "view" });
  const status = make("p", { class: "status", role: "status" });
  let view = null;
  let timer = 0;

  function clamp() {
    const [height, width] = view.bounds();
    state.i = Math.max(0, Math.min(height - 1, state.i));
    state.j = Math.max(0, Math.min(width - 1, state.j));
  }

  /** Change the place that is looked at; returns whether it was another one. */
  function change(patch) {
    if (Object.entries(patch).every(([name, value]) => state[name] === value)) return false;
    Object.assign(state, patch);
    if ("way" in patch) build();
    else {
      clamp();
      view.update();
      fill(status, view.say());
    }
    return true;
  }

  function build() {
    if (
      gradients &&
      !["ends", "input", "sum", "concat", "multiply", "generic", "flatten"].includes(node.view) &&
      !node.dy
    ) {
      view = {
        element: make("p", {}, "No gradient of the loss reaches this layer."),
        bounds: () => [1, 1],
        update: () => {},
        say: () => "",
      };
    } else view = views[node.view](node, state, change, gradients);
    clamp();
    fill(body, gradients && node.view === "convolution" && node.dy ? ways() : null, view.element);
    view.update();
    body.querySelector(".stage:has(.picked)")?.after(hint());
    fill(status, view.say());
  }

  function ways() {
    const one = (way, name) =>
      make(
        "button",
        { type: "button", "aria-pressed": String(state.way === way), onclick: () => change({ way }) },
        name,
      );
    return make(
      "div",
      { class: "ways", role: "group", "aria-label": "gradient of" },
      "The gradient of ",
      one("weight", "a weight"),
      one("pixel", "an input pixel"),
    );
  }

  /** Move the frame to a place, and hold it there. */
  function moveTo(i, j) {
    hold(true);
    return change({ i, j });
  }

  function move(down, right) {
    const [height, width] = view.bounds();
    if (height * width === 1) return other(down + right);
    return moveTo(Math.max(0, Math.min(height - 1, state.i + down)), Math.max(0, Math.min(width - 1, state.j + right)));
  }

  function other(step) {
    const count = node.view === "flatten" ? source(node).y.count : node.y.count;
    const name = node.view === "flatten" ? "c" : node.view === "linear" || node.view === "ends" ? "i" : "k";
    const next = (state[name] + step + count) % count;
    return change(
      name === "k" && ["max", "average", "mean"].includes(node.view) ? { k: next, c: next } : { [name]: next },
    );
  }

  /** The next place in reading order; returns false at the end. */
  function next() {
    const [height, width] = view.bounds();
    const at = state.i * width + state.j + 1;
    if (at >= height * width) return false;
    return moveTo(Math.floor(at / width), at % width);
  }

  const play = make("button", { type: "button", class: "play", onclick: () => (timer ? stop() : run()) }, "▶ slide");
  function run() {
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const [height, width] = view.bounds();
    if (state.i === height - 1 && state.j === width - 1) moveTo(0, 0);
    fill(play, "◼ stop");
    timer = setInterval(() => next() || stop(), calm ? 900 : 420);
  }
  function stop() {
    clearInterval(timer);
    timer = 0;
    fill(play, "▶ slide");
  }

  /** Handle a key; returns whether it meant something here. */
  function key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return false;
    const [height, width] = view.bounds();
    if (ARROWS[event.key]) move(...ARROWS[event.key]);
    else if (event.key === "[") other(-1);
    else if (event.key === "]") other(1);
    else if (event.key === "Home") moveTo(0, 0);
    else if (event.key === "End") moveTo(height - 1, width - 1);
    else if (event.key === "PageUp") go(Math.max(0, node.number - 1));
    else if (event.key === "PageDown") go(Math.min(nodes.length - 1, node.number + 1));
    else if (event.key === " " && event.target.closest("button, a, summary") === null) timer ? stop() : run();
    else return false;
    return true;
  }

  const title = make(
    "h1",
    { tabindex: "-1" },
    node.kind === "input" ? "image" : node.kind,
    node.name ? make("span", { class: "place" }, ` layer ${node.name}`) : null,
  );
  const step = (number, label, sign) =>
    make("button", { type: "button", disabled: !nodes[number], "aria-label": label, onclick: () => go(number) }, sign);
  const from = node.inputs.length
    ? `${[...new Set(node.inputs)].map((number) => shapeOf(nodes[number])).join(" and ")} → `
    : "";
  const element = make(
    "main",
    { class: "closeup" },
    make(
      "div",
      { class: "bar-top" },
      make("button", { type: "button", class: "back", onclick: () => go(null) }, "‹ all layers"),
      step(node.number - 1, "the layer before", "↑"),
      step(node.number + 1, "the next layer", "↓"),
      title,
      play,
    ),
    make(
      "p",
      { class: "soft" },
      `${from}${shapeOf(node)}${about(node) ? ` · ${about(node)}` : ""}${node.path ? ` · ${node.path}` : ""}`,
    ),
    body,
    status,
    make(
      "p",
      { class: "keys touch" },
      "Tap a picture to move the frame, and a small one in a row to change the channel; rows go on when you draw them aside. ↑ and ↓ go to the layers before and after.",
    ),
    make(
      "p",
      { class: "keys mouse" },
      "Keys: arrows move, Home and End go to the corners, ",
      make("kbd", {}, "["),
      " and ",
      make("kbd", {}, "]"),
      " change the channel, the space bar slides, Page Up and Page Down go to other layers, ",
      make("kbd", {}, "g"),
      " switches to gradients and back, Esc leaves.",
    ),
  );
  hold(false);
  build();
  return { element, title, key, repaint: build, close: stop };
}
