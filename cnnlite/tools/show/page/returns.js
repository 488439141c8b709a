// What comes back through layers with windows: gradients of weights, and of pixels of the input.

import { counted, seen, weightAt, weightOrNull, winner } from "./arithmetic.js";
import { channel, channelName, consumers, hidden, parameter, source } from "./data.js";
import { fill, make, others, whole } from "./dom.js";
import { backward, biasGradient, gathered, returned, weightGradient, windowsAt } from "./gradients.js";
import { scaleOf } from "./paint.js";
import { beside, chooser, grid, line, picture, verdict } from "./parts.js";
import { clamp, extent, pad, thumbnails, windowOf } from "./windows.js";

/** All that comes back to a place of the input, where several layers take it. */
export function gatheredLine(node, k, i, j) {
  if (node.view === "input" || consumers(node).length < 2) return null;
  const found = gathered(node, k, i, j);
  if (!found?.parts) return null;
  const terms = found.parts.flatMap(({ other, gradient }, index) => [
    index ? "+" : null,
    {
      value: gradient,
      name: `through ${other.kind} ${other.name}`,
      palette: "gradients",
      scale: Math.abs(found.value) || 1,
    },
  ]);
  return make(
    "section",
    { class: "numbers" },
    make("h3", {}, "All paths together"),
    make("p", { class: "soft" }, `${found.parts.length} layers take this map; what comes back through them is added.`),
    line(...terms, "=", {
      value: found.value,
      name: "the whole gradient of this number",
      palette: "gradients",
      scale: Math.abs(found.value) || 1,
    }),
    verdict(found, { name: "gathered", of: "whole gradient" }),
  );
}

export function weightBackward(node, state, change) {
  const { windows } = node;
  const x = source(node).y;
  const [height, width] = windows.kernel;
  const filters = chooser({
    title: "Filter: gradients of its output",
    node,
    count: node.y.count,
    choose: (k) => change({ k }),
  });
  const inputs = chooser({ title: "Input channel", node: source(node), count: x.count, choose: (c) => change({ c }) });
  const pick = (row, column) => change({ row, column });
  const grids = [grid({ title: "weights: choose one", pick }), grid({ title: "their gradients", pick })];
  const input = picture({
    title: "input",
    hatched: pad(windows).some((side) => side > 0),
    pick: (i, j) =>
      change({
        i: clamp(Math.round((i - state.row * windows.dilation[0]) / windows.stride[0]), windows.out[0]),
        j: clamp(Math.round((j - state.column * windows.dilation[1]) / windows.stride[1]), windows.out[1]),
      }),
  });
  const back = picture({ title: "gradient of the output", pick: (i, j) => change({ i, j }) });
  const product = picture({ title: "products", pick: (i, j) => change({ i, j }) });
  const sum = make("div");
  filters.paint(thumbnails(node.dy, "gradients"));
  inputs.paint(thumbnails(x, "values"));
  const all = (name, c) =>
    Array.from({ length: height * width }, (_, place) =>
      weightOrNull(node, state.k, c, Math.floor(place / width), place % width, name),
    );
  return {
    element: make(
      "div",
      {},
      make(
        "p",
        { class: "lesson" },
        "A weight is used at every place of the window: it meets one number of the input each time. Its gradient is the sum, over all places, of that number times the gradient of the output there.",
      ),
      filters.element,
      inputs.element,
      beside(grids),
      make(
        "div",
        { class: "stage three" },
        input.element,
        make("span", { class: "operator" }, "×"),
        back.element,
        make("span", { class: "operator" }, "="),
        product.element,
      ),
      make("section", { class: "numbers" }, sum),
    ),
    bounds: () => [node.y.height, node.y.width],
    update() {
      const { k, i, j, row, column } = state;
      const c = seen(node, k, state.c);
      filters.select(k);
      inputs.select(c);
      const chosen = row * width + column;
      const found = weightGradient(node, k, c, row, column);
      grids[0].paint(all("weight", c), height, width, { chosen });
      if (found) grids[1].paint(all("dweight", c), height, width, { chosen, palette: "gradients" });
      else grids[1].retitle("not trained: no gradients");
      input.retitle(`input, ${channelName(source(node), c)}`);
      input.paint(x.one(c), x.height, x.width, { pad: pad(windows) });
      const [top, left] = [i * windows.stride[0], j * windows.stride[1]];
      input.mark("window", top, left, ...extent(windows));
      input.mark("tap", top + row * windows.dilation[0], left + column * windows.dilation[1], 1, 1);
      back.retitle(`gradient of the output, ${channelName(node, k)}`);
      back.paint(node.dy.one(k), node.dy.height, node.dy.width, { palette: "gradients" });
      back.mark("pixel", i, j, 1, 1);
      const met = windowOf(node, c, i, j)[chosen];
      const bias = biasGradient(node, k);
      if (found) {
        product.paint(found.products, node.dy.height, node.dy.width, { palette: "gradients" });
        product.mark("pixel", i, j, 1, 1);
      }
      fill(
        sum,
        line(
          { value: met ?? 0, name: met === null ? "padding" : "input under this weight" },
          "×",
          { value: node.dy.at(k, i, j), name: `gradient at row ${i}, column ${j}` },
          "=",
          { value: (met ?? 0) * node.dy.at(k, i, j), name: "this product" },
        ),
        found &&
          line({
            value: found.value,
            name: `Σ of all ${whole(node.dy.height * node.dy.width)} products: the gradient of weight (${row}, ${column})`,
            palette: "gradients",
            scale: scaleOf(parameter(node, "dweight").values),
          }),
        found && verdict(found, { name: "weight", of: "gradient of the weight" }),
        bias &&
          make(
            "p",
            { class: "formula" },
            `The bias is added at every place: its gradient is the sum of the gradients of channel ${channel(node, k)}.`,
          ),
        bias && verdict(bias, { name: "bias", of: "gradient of the bias" }),
      );
    },
    say: () => `row ${state.i}, column ${state.j}`,
  };
}

export function pixelBackward(node, state, change) {
  const { windows } = node;
  const from = source(node);
  const [height, width] = [from.y.height, from.y.width];
  const pools = node.view !== "convolution";
  const filters = chooser({
    title: pools ? "Channel" : "What comes back through each filter",
    node,
    count: node.y.count,
    choose: (k) => change(pools ? { k, c: k } : { k }),
  });
  const inputs = pools
    ? null
    : chooser({ title: "Input channel", node: from, count: from.y.count, choose: (c) => change({ c }) });
  const back = picture({ title: "gradient of the output", hatched: false });
  const input = picture({ title: "gradient of the input", pick: (i, j) => change({ i, j }) });
  const grids = (
    pools
      ? ["what its windows give back", "numbers of the first window"]
      : ["gradient in the frame", "weights", "products"]
  ).map((title) => grid({ title }));
  const sum = make("div");
  filters.paint(thumbnails(node.dy, "gradients"));
  const gradients = Float32Array.from({ length: height * width });
  return {
    element: make(
      "div",
      {},
      make("p", { class: "lesson" }, lessons[node.view], !pools && windows.kernel.some((size) => size > 1) && TURNED),
      inputs?.element,
      make(
        "div",
        { class: "stage" },
        input.element,
        make("div", { class: "arrow", "aria-hidden": "true" }, "←"),
        back.element,
      ),
      make("section", { class: "numbers" }, beside(grids, pools ? [] : ["×", "="]), sum),
      filters.element,
    ),
    bounds: () => [height, width],
    update() {
      const { k, i, j } = state;
      const c = pools ? k : state.c;
      filters.select(k);
      if (inputs) {
        inputs.select(c);
        inputs.paint(thumbnails(from.dy ?? from.y, from.dy ? "gradients" : "values"));
      }
      for (let place = 0; place < gradients.length; place++)
        gradients[place] = returned(node, 0, c, Math.floor(place / width), place % width) ?? 0;
      input.retitle(`gradient of the input, ${channelName(from, c)}`);
      input.paint(gradients, height, width, { palette: "gradients" });
      input.mark("pixel", i, j, 1, 1);
      back.retitle(`gradient of the output, ${channelName(node, k)}`);
      back.paint(node.dy.one(k), node.dy.height, node.dy.width, { palette: "gradients" });
      const covers = windowsAt(windows, i, j);
      const first = covers[0];
      const last = covers[covers.length - 1];
      if (!first) back.mark("window", null);
      else
        back.mark(
          "window",
          Math.min(first.i, last.i),
          Math.min(first.j, last.j),
          Math.abs(last.i - first.i) + 1,
          Math.abs(last.j - first.j) + 1,
        );
      const shape = shapeOf(covers);
      const found = backward(node, c, i, j);
      const there = covers.map((at) => node.dy.at(k, at.i, at.j));
      if (pools) {
        const given = there.map((gradient, index) =>
          found?.terms
            ? found.terms[index].won
              ? gradient
              : 0
            : gradient / counted(windows, covers[index].i, covers[index].j),
        );
        grids[0].retitle(covers.length === 1 ? "what its window gives back" : "what its windows give back");
        grids[1].retitle(covers.length === 1 ? "numbers of the window" : "numbers of the first window");
        grids[0].paint(given, ...shape, { palette: "gradients", scale: scaleOf(node.dy.one(k)) });
        const won = found?.terms && first ? winner(node, k, first.i, first.j) : null;
        const chosen = won ? won.row * windows.kernel[1] + won.column : -1;
        if (first)
          grids[1].paint(windowOf(node, k, first.i, first.j), ...windows.kernel, {
            chosen,
            scale: scaleOf(from.y.one(k)),
          });
      } else {
        const weights = covers.map((at) => weightAt(node, k, c, at.row, at.column));
        grids[0].paint(there, ...shape, { palette: "gradients", scale: scaleOf(node.dy.one(k)) });
        grids[1].retitle(`weights it met${isTurned(covers) ? ", turned by 180°" : ""}`);
        grids[1].paint(weights, ...shape, { scale: scaleOf(parameter(node, "weight").values) });
        grids[2].paint(
          there.map((gradient, index) => gradient * weights[index]),
          ...shape,
          { palette: "gradients" },
        );
        if (found) filters.amounts(found.parts, "gradients");
      }
      fill(
        sum,
        found &&
          !pools &&
          line(
            { value: found.parts[k], name: `Σ through filter ${channel(node, k)}` },
            node.y.count > 1 ? "+" : null,
            node.y.count > 1
              ? { value: found.products - found.parts[k], name: `Σ through ${others(node.y.count - 1, "filter")}` }
              : null,
            node.rest_back ? "+" : null,
            node.rest_back
              ? { value: found.rest, name: `${whole(hidden(node))} filters that are not in this page, by NumPy` }
              : null,
            "=",
            { value: found.value, name: `comes back to row ${i}, column ${j}` },
          ),
        found &&
          pools &&
          line({
            value: found.value,
            name: `from ${covers.length} ${covers.length === 1 ? "window" : "windows"} with this pixel`,
          }),
        verdict(found, { name: "pixel" }),
        gatheredLine(from, c, i, j),
      );
    },
    say: () => `pixel at row ${state.i}, column ${state.j}`,
  };
}

/** Rows and columns of the windows that cover a pixel. */
function shapeOf(covers) {
  const rows = new Set(covers.map((at) => `${at.i} ${at.row}`)).size; // a mirrored one may be in a window twice
  return [rows, rows ? covers.length / rows : 0];
}

/** Whether the weights that a pixel meets lie as in a filter turned by 180 degrees: not where it is mirrored, too. */
const isTurned = (covers) => covers.length > 1 && new Set(covers.map(({ i, j }) => `${i} ${j}`)).size === covers.length;

const TURNED =
  " A window further up and left has the pixel further down and right in it: so the weights that belong to the gradients in the frame are those of the filter turned by 180 degrees.";

const lessons = {
  convolution:
    "A pixel is in several windows, and each filter looks at all of them. What comes back to it is the sum, over filters and windows, of the gradient of the output times the weight that the pixel met there.",
  max: "Only the greatest number of a window gets its gradient; the others had no influence, and get none.",
  average: "Every number of a window gets an equal share of its gradient.",
  mean: "Every pixel had the same share in the mean, and gets the same share of its gradient.",
};
