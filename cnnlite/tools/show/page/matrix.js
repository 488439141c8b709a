// Close-up of a linear layer: every output is a sum over all inputs.

import { forward, origin } from "./arithmetic.js";
import { channel, channelName, facts, hidden, parameter, source } from "./data.js";
import { exact, fill, make, medium, short, whole } from "./dom.js";
import { backward, biasGradient, weightGradient } from "./gradients.js";
import { colour, css, paintMap, scaleOf } from "./paint.js";
import { chooser, line, picture, verdict } from "./parts.js";
import { gatheredLine } from "./returns.js";

const LISTED = 24;

/** Name of an output: a class, if the layer gives the logits. */
const outputName = (node, k) => (node.number === facts.last ? facts.classes[k] : `output ${channel(node, k)}`);

/** Where an input comes from: a pixel of a map, if the layer before flattens. */
function inputName(node, c) {
  const from = source(node);
  if (from.view !== "flatten") return `input ${channel(from, c)}`;
  const [k, i, j] = origin(from, c);
  return `${channelName(source(from), k)} (${i}, ${j})`;
}

export function linear(node, state, change, gradients) {
  const from = source(node);
  const outputs = from.y.count;
  const { values } = parameter(node, "weight");
  const weight = (k, c) => values[k * outputs + c];
  const palette = gradients ? "gradients" : "values";
  const rows = chooser({
    title: node.number === facts.last ? "Class" : "Output",
    node,
    count: node.y.count,
    choose: (k) => change({ i: k }),
    name: (k) => (node.number === facts.last ? facts.classes[k] : String(channel(node, k))),
  });
  const columns = Math.min(outputs, 64);
  const high = Math.ceil(outputs / columns);
  const flattened = from.view === "flatten" ? source(from) : null;
  const weights = picture({
    title: "weights",
    pick: flattened ? null : (i, j) => change({ j: Math.min(outputs - 1, i * columns + j) }),
  });
  const channels =
    flattened &&
    chooser({
      title: gradients
        ? "Gradients of the weights, for each channel before flatten"
        : "Weights for each channel before flatten, and what the channel adds",
      node: flattened,
      count: flattened.y.count,
      choose: (c) => change({ j: c }),
    });
  const table = make("div");
  const sum = make("div");
  const lesson = gradients
    ? "The gradient of a weight is its input times the gradient of its output. What comes back to an input is the sum, over all outputs, of gradient times weight."
    : "Every input is multiplied by its weight, and all products are added.";
  rows.paint((canvas, k) => {
    const shown = gradients ? node.dy.values : node.y.values;
    paintMap(canvas, [shown[k]], 1, 1, scaleOf(shown), palette);
  });
  rows.amounts(gradients ? node.dy.values : node.y.values, palette);
  return {
    element: make(
      "div",
      {},
      make("p", { class: "lesson" }, lesson),
      rows.element,
      make("section", { class: "numbers" }, sum),
      channels?.element,
      make("div", { class: "beside" }, table, flattened ? null : weights.element),
    ),
    bounds: () => [node.y.count, outputs],
    update() {
      const { i: k, j: c } = state;
      const found = gradients ? backward(node, c, 0, 0) : forward(node, k, 0, 0);
      rows.select(k);
      const matrix = gradients ? parameter(node, "dweight").values : values;
      const row = matrix.subarray(k * outputs, (k + 1) * outputs);
      if (channels) paintChannels(channels, flattened, row, gradients ? null : found.parts, palette, matrix, c);
      else {
        const padded = new Float32Array(columns * high);
        padded.set(row);
        weights.retitle(
          `${gradients ? "gradients of the weights" : "weights"} of ${outputName(node, k)}, ${columns} in a row`,
        );
        weights.paint(padded, high, columns, { palette });
        weights.mark("pixel", Math.floor(c / columns), c % columns, 1, 1);
      }
      fill(sum, gradients ? back(node, k, c, weight, found) : ahead(node, k, found));
      fill(table, gradients ? listBack(node, c, weight, found, change) : listAhead(node, k, c, weight, found, change));
    },
    say: () => `${outputName(node, state.i)}: ${medium(node.y.values[state.i])}`,
  };
}

function paintChannels(channels, flattened, row, parts, palette, matrix, selected) {
  const { count, height, width } = flattened.y;
  const scale = scaleOf(matrix);
  const map = new Float32Array(height * width);
  const sums = new Float64Array(count);
  channels.paint((canvas, k) => {
    for (let at = 0; at < map.length; at++) {
      map[at] = row[at * count + k];
      if (parts) sums[k] += parts[at * count + k];
    }
    paintMap(canvas, map, height, width, scale, palette);
  });
  if (parts) channels.amounts(sums);
  channels.select(selected % count);
}

function ahead(node, k, found) {
  const scale = Math.max(Math.abs(found.value), Math.abs(found.bias), 1e-30);
  return [
    line(
      { value: found.products, name: `Σ of ${whole(found.parts.length)} products` },
      node.rest ? "+" : null,
      node.rest
        ? { value: found.rest, name: `${whole(hidden(source(node)))} inputs that are not in this page, by NumPy` }
        : null,
      parameter(node, "bias") ? "+" : null,
      parameter(node, "bias") ? { value: found.bias, name: "bias", palette: "values", scale } : null,
      "=",
      { value: found.value, name: outputName(node, k), palette: "values", scale },
    ),
    verdict(found, { name: "forward" }),
  ];
}

function back(node, k, c, _weight, found) {
  const of = weightGradient(node, k, c);
  const bias = biasGradient(node, k);
  const x = source(node).y.values[c];
  return [
    make("h3", {}, `The weight from ${inputName(node, c)} to ${outputName(node, k)}`),
    line({ value: x, name: "input" }, "×", { value: node.dy.values[k], name: "gradient of the output" }, "=", {
      value: of.value,
      name: "gradient of the weight",
    }),
    verdict(of, { name: "weight", of: "gradient of the weight" }),
    bias && make("p", { class: "formula" }, "The gradient of the bias is that of the output."),
    bias && verdict(bias, { name: "bias", of: "gradient of the bias" }),
    make("h3", {}, `What comes back to ${inputName(node, c)}`),
    found &&
      line(
        { value: found.products, name: `Σ of ${found.parts.length} products` },
        node.rest_back ? "+" : null,
        node.rest_back ? { value: found.rest, name: "outputs that are not in this page, by NumPy" } : null,
        "=",
        { value: found.value, name: "gradient of the input" },
      ),
    verdict(found, { name: "pixel", of: "gradient of the input" }),
    gatheredLine(source(node), c, 0, 0),
  ];
}

function rowsOf(heads, entries) {
  return make(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": "contributions" },
    make(
      "table",
      {},
      make(
        "thead",
        {},
        make(
          "tr",
          {},
          heads.map((head) => make("th", { scope: "col" }, head)),
        ),
      ),
      make("tbody", {}, entries),
    ),
  );
}

function bar(value, scale, palette) {
  const share = Math.min(1, Math.abs(value) / scale);
  const side = value < 0 ? "right: 50%" : "left: 50%";
  return make(
    "td",
    { class: "bars" },
    make("span", {
      class: "bar",
      style: `${side}; width: ${50 * share}%; background: ${css(colour(Math.sign(value), palette))}`,
    }),
  );
}

function entry(name, numbers, share, palette, chosen, choose) {
  return make(
    "tr",
    { class: chosen ? "chosen" : null },
    make("th", { scope: "row" }, make("button", { type: "button", onclick: choose }, name)),
    numbers.map((number) => make("td", { title: exact(number) }, short(number))),
    bar(numbers[numbers.length - 1], share, palette),
  );
}

function listAhead(node, k, c, weight, found, change) {
  const order = found.parts
    .map((_, index) => index)
    .sort((a, b) => Math.abs(found.parts[b]) - Math.abs(found.parts[a]));
  const top = order.slice(0, LISTED);
  const others = order.slice(LISTED).reduce((total, index) => total + found.parts[index], 0);
  const scale = Math.abs(found.parts[order[0]]) || 1;
  const entries = top.map((index) =>
    entry(
      inputName(node, index),
      [source(node).y.values[index], weight(k, index), found.parts[index]],
      scale,
      "values",
      index === c,
      () => change({ j: index }),
    ),
  );
  if (order.length > LISTED)
    entries.push(
      make(
        "tr",
        {},
        make("th", { scope: "row" }, `${whole(order.length - LISTED)} others`),
        make("td"),
        make("td"),
        make("td", { title: exact(others) }, short(others)),
        bar(others, scale, "values"),
      ),
    );
  return [
    make("h3", {}, `What adds most to ${outputName(node, k)}`),
    rowsOf(
      [source(node).view === "flatten" ? "input (row, column)" : "input", "number", "weight", "product", ""],
      entries,
    ),
  ];
}

function listBack(node, c, weight, found, change) {
  if (!found) return [];
  const scale = Math.max(...found.parts.map(Math.abs)) || 1;
  const entries = found.parts.map((part, k) =>
    entry(outputName(node, k), [node.dy.values[k], weight(k, c), part], scale, "gradients", false, () =>
      change({ i: k }),
    ),
  );
  return [
    make("h3", {}, `What comes back to ${inputName(node, c)}`),
    rowsOf(["output", "its gradient", "weight", "product", ""], entries),
  ];
}
