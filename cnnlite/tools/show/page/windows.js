// Close-ups of layers with sliding windows: convolutions and poolings, forward and backward.

import { forward, inside, placesOf, weightAt, winner } from "./arithmetic.js";
import { channel, consumers, hidden, parameter, source } from "./data.js";
import { fill, make, medium, whole } from "./dom.js";
import { backward, biasGradient, gathered, returned, weightGradient, windowsAt } from "./gradients.js";
import { paintMap, scaleOf } from "./paint.js";
import { chooser, grid, line, picture, verdict } from "./parts.js";

const pad = ({ top_left: [top, left], bottom_right: [bottom, right] }) => [top, left, bottom, right];
const clamp = (number, count) => Math.max(0, Math.min(count - 1, number));

/** The output whose window is centred at a pixel of the padded image. */
function outputAt(windows, axis, at) {
  return clamp(Math.round((at - (windows.kernel[axis] - 1) / 2) / windows.stride[axis]), windows.out[axis]);
}

/** The numbers of a window of channel `c`, null in the padding. */
function windowOf(node, c, i, j) {
  const { windows } = node;
  const x = source(node).y;
  const found = [];
  for (let row = 0; row < windows.kernel[0]; row++) {
    for (let column = 0; column < windows.kernel[1]; column++) {
      const y = inside(windows, 0, i, row);
      const xx = inside(windows, 1, j, column);
      found.push(y < 0 || xx < 0 ? null : x.at(c, y, xx));
    }
  }
  return found;
}

export const thumbnails = (found, palette) => {
  const scale = scaleOf(found.values);
  return (canvas, k) => paintMap(canvas, found.one(k), found.height, found.width, scale, palette);
};

export const colourName = (node, c) =>
  node.view === "input" && node.y.count === 3 ? ["red", "green", "blue"][c] : `channel ${channel(node, c)}`;

/** Input and output of a windowed layer, with the window on both; moving on either moves the window. */
function stage(node, state, change) {
  const { windows } = node;
  const input = picture({
    title: "input",
    hatched: pad(windows).some((side) => side > 0),
    pick: (i, j) => change({ i: outputAt(windows, 0, i), j: outputAt(windows, 1, j) }),
  });
  const output = picture({ title: "output", pick: (i, j) => change({ i, j }) });
  return {
    element: make("div", { class: "stage" }, input.element, make("div", { class: "arrow", "aria-hidden": "true" }, "→"), output.element),
    update(c) {
      const x = source(node).y;
      input.retitle(`input, ${colourName(source(node), c)}`);
      input.paint(x.one(c), x.height, x.width, { pad: pad(windows) });
      output.retitle(`output, channel ${channel(node, state.k)}`);
      output.paint(node.y.one(state.k), node.y.height, node.y.width, { scale: scaleOf(node.y.values) });
      const [row, column] = [state.i * windows.stride[0], state.j * windows.stride[1]];
      input.mark("window", row, column, ...windows.kernel);
      output.mark("pixel", state.i, state.j, 1, 1);
    },
  };
}

export function convolutionForward(node, state, change) {
  const { windows } = node;
  const x = source(node).y;
  const [height, width] = windows.kernel;
  const filters = chooser({ title: "Filter: one output channel each", node, count: node.y.count, choose: (k) => change({ k }) });
  const inputs = chooser({
    title: "What each input channel adds",
    note: "The slice of the filter for each input channel, and the sum of its products at this place.",
    node: source(node),
    count: x.count,
    choose: (c) => change({ c }),
  });
  const view = stage(node, state, change);
  const grids = ["window", "filter", "products"].map((title) => grid({ title }));
  const sum = make("div");
  const numbers = make("section", { class: "numbers" },
    make("div", { class: "grids" }, grids[0].element, make("span", { class: "operator" }, "×"), grids[1].element, make("span", { class: "operator" }, "="), grids[2].element),
    sum,
  );
  filters.paint(thumbnails(node.y, "values"));
  const scale = scaleOf(parameter(node, "weight").values);
  const slice = (c) => {
    const found = [];
    for (let row = 0; row < height; row++) for (let column = 0; column < width; column++) found.push(weightAt(node, state.k, c, row, column));
    return found;
  };
  return {
    element: make("div", {}, filters.element, view.element, numbers, inputs.element),
    bounds: () => [node.y.height, node.y.width],
    update() {
      const { k, c, i, j } = state;
      const found = forward(node, k, i, j);
      view.update(c);
      filters.select(k);
      inputs.select(c);
      inputs.paint((canvas, index) => paintMap(canvas, slice(index), height, width, scale, "values"));
      inputs.amounts(found.parts);
      const window = windowOf(node, c, i, j);
      const weights = slice(c);
      grids[0].retitle(`window at row ${i}, column ${j}`);
      grids[0].paint(window, height, width, { scale: scaleOf(x.one(c)) });
      grids[1].retitle(`filter ${channel(node, k)}, ${colourName(source(node), c)}`);
      grids[1].paint(weights, height, width, { scale });
      grids[2].retitle("products");
      grids[2].paint(window.map((number, place) => (number === null ? null : number * weights[place])), height, width);
      const most = Math.max(...found.parts.map(Math.abs), Math.abs(found.value), 1e-30);
      fill(sum,
        line(
          { value: found.parts[c], name: `Σ of these ${height * width} products`, palette: "values", scale: most },
          x.count > 1 ? "+" : null,
          x.count > 1 ? { value: found.products - found.parts[c], name: `Σ of the ${whole(x.count - 1)} other ${x.count > 2 ? "channels" : "channel"}`, palette: "values", scale: most } : null,
          node.rest ? "+" : null,
          node.rest ? { value: found.rest, name: `${whole(hidden(source(node)))} channels that are not in this page, by NumPy`, palette: "values", scale: most } : null,
          parameter(node, "bias") ? "+" : null,
          parameter(node, "bias") ? { value: found.bias, name: "bias", palette: "values", scale: most } : null,
          "=",
          { value: found.value, name: `output, channel ${channel(node, k)}, row ${i}, column ${j}`, palette: "values", scale: most },
        ),
        verdict(found, { name: "forward" }),
      );
    },
    say: () => `row ${state.i}, column ${state.j}: ${medium(node.y.at(state.k, state.i, state.j))}`,
  };
}

export function poolForward(node, state, change) {
  const { windows } = node;
  const channels = chooser({ title: "Channel", node, count: node.y.count, choose: (k) => change({ k }) });
  const view = stage(node, state, change);
  const window = grid({ title: "window" });
  const sum = make("div");
  channels.paint(thumbnails(node.y, "values"));
  return {
    element: make("div", {}, channels.element, view.element, make("section", { class: "numbers" }, make("div", { class: "grids" }, window.element), sum)),
    bounds: () => [node.y.height, node.y.width],
    update() {
      const { k, i, j } = state;
      const found = forward(node, k, i, j);
      view.update(k);
      channels.select(k);
      const chosen = found.won ? found.won.row * windows.kernel[1] + found.won.column : -1;
      const scale = scaleOf(source(node).y.one(k));
      window.retitle(`window at row ${i}, column ${j}`);
      window.paint(windowOf(node, k, i, j), ...windows.kernel, { scale, chosen });
      const most = Math.max(Math.abs(found.value), scale);
      const result = { value: found.value, name: `output, row ${i}, column ${j}`, palette: "values", scale: most };
      fill(sum,
        found.won
          ? line({ value: found.won.x, name: `the greatest of ${placesOf(node, k, i, j).length}, at row ${found.won.i}, column ${found.won.j}`, palette: "values", scale: most }, "=", result)
          : line({ value: found.sum, name: `Σ of ${found.places} numbers` }, "÷", { value: found.places, name: "their number, padding included" }, "=", result),
        verdict(found, { name: "forward" }),
      );
    },
    say: () => `row ${state.i}, column ${state.j}: ${medium(node.y.at(state.k, state.i, state.j))}`,
  };
}

/** All that comes back to a place of the input, where several layers take it. */
export function gatheredLine(node, k, i, j) {
  if (node.view === "input" || consumers(node).length < 2) return null;
  const found = gathered(node, k, i, j);
  if (!found?.parts) return null;
  const terms = found.parts.flatMap(({ other, gradient }, index) => [
    index ? "+" : null,
    { value: gradient, name: `through ${other.kind} ${other.name}`, palette: "gradients", scale: Math.abs(found.value) || 1 },
  ]);
  return make("section", { class: "numbers" },
    make("h3", {}, "All paths together"),
    make("p", { class: "soft" }, `${found.parts.length} layers take this map; what comes back through them is added.`),
    line(...terms, "=", { value: found.value, name: "the whole gradient of this number", palette: "gradients", scale: Math.abs(found.value) || 1 }),
    verdict(found, { name: "gathered" }),
  );
}

export function weightBackward(node, state, change) {
  const { windows } = node;
  const x = source(node).y;
  const [height, width] = windows.kernel;
  const filters = chooser({ title: "Filter: gradients of its output", node, count: node.y.count, choose: (k) => change({ k }) });
  const inputs = chooser({ title: "Input channel", node: source(node), count: x.count, choose: (c) => change({ c }) });
  const pick = (row, column) => change({ row, column });
  const grids = [grid({ title: "weights: choose one", pick }), grid({ title: "their gradients", pick })];
  const input = picture({
    title: "input", hatched: pad(windows).some((side) => side > 0),
    pick: (i, j) => change({ i: clamp(Math.round((i - state.row) / windows.stride[0]), windows.out[0]), j: clamp(Math.round((j - state.column) / windows.stride[1]), windows.out[1]) }),
  });
  const back = picture({ title: "gradient of the output", pick: (i, j) => change({ i, j }) });
  const product = picture({ title: "products", pick: (i, j) => change({ i, j }) });
  const sum = make("div");
  filters.paint(thumbnails(node.dy, "gradients"));
  inputs.paint(thumbnails(x, "values"));
  const all = (name) => Array.from({ length: height * width }, (_, place) => {
    const { shape, values } = parameter(node, name);
    return values[(state.k * shape[1] + state.c) * height * width + place];
  });
  return {
    element: make("div", {},
      make("p", { class: "lesson" }, "A weight is used at every place of the window: it meets one number of the input each time. Its gradient is the sum, over all places, of that number times the gradient of the output there."),
      filters.element, inputs.element,
      make("div", { class: "grids" }, ...grids.map((one) => one.element)),
      make("div", { class: "stage three" }, input.element, make("span", { class: "operator" }, "×"), back.element, make("span", { class: "operator" }, "="), product.element),
      make("section", { class: "numbers" }, sum)),
    bounds: () => [node.y.height, node.y.width],
    update() {
      const { k, c, i, j, row, column } = state;
      filters.select(k);
      inputs.select(c);
      const chosen = row * width + column;
      const found = weightGradient(node, k, c, row, column);
      grids[0].paint(all("weight"), height, width, { chosen });
      if (found) grids[1].paint(all("dweight"), height, width, { chosen, palette: "gradients" });
      else grids[1].retitle("not trained: no gradients");
      input.retitle(`input, ${colourName(source(node), c)}`);
      input.paint(x.one(c), x.height, x.width, { pad: pad(windows) });
      input.mark("window", i * windows.stride[0], j * windows.stride[1], height, width);
      input.mark("tap", i * windows.stride[0] + row, j * windows.stride[1] + column, 1, 1);
      back.retitle(`gradient of output channel ${channel(node, k)}`);
      back.paint(node.dy.one(k), node.dy.height, node.dy.width, { palette: "gradients" });
      back.mark("pixel", i, j, 1, 1);
      const met = windowOf(node, c, i, j)[chosen];
      const bias = biasGradient(node, k);
      if (found) {
        product.paint(found.products, node.dy.height, node.dy.width, { palette: "gradients" });
        product.mark("pixel", i, j, 1, 1);
      }
      fill(sum,
        line({ value: met ?? 0, name: met === null ? "padding" : "input under this weight" }, "×", { value: node.dy.at(k, i, j), name: `gradient at row ${i}, column ${j}` }, "=", { value: (met ?? 0) * node.dy.at(k, i, j), name: "this product" }),
        found && line({ value: found.value, name: `Σ of all ${whole(node.dy.height * node.dy.width)} products: the gradient of weight (${row}, ${column})`, palette: "gradients", scale: scaleOf(parameter(node, "dweight").values) }),
        found && verdict(found, { name: "weight" }),
        bias && make("p", {}, `The bias is added at every place: its gradient is the sum of the gradients of channel ${channel(node, k)}.`),
        bias && verdict(bias, { name: "bias" }),
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
    title: pools ? "Channel" : "What comes back through each filter", node, count: node.y.count,
    choose: (k) => change(pools ? { k, c: k } : { k }),
  });
  const inputs = pools ? null : chooser({ title: "Input channel", node: from, count: from.y.count, choose: (c) => change({ c }) });
  const back = picture({ title: "gradient of the output", hatched: false });
  const input = picture({ title: "gradient of the input", pick: (i, j) => change({ i, j }) });
  const grids = (pools ? ["what the windows give back", "numbers of the first of these windows"] : ["gradients of the outputs", "weights", "products"]).map((title) => grid({ title }));
  const sum = make("div");
  filters.paint(thumbnails(node.dy, "gradients"));
  const gradients = Float32Array.from({ length: height * width });
  const share = windows.kernel[0] * windows.kernel[1];
  return {
    element: make("div", {},
      make("p", { class: "lesson" }, lessons[node.view]),
      inputs?.element,
      make("div", { class: "stage" }, input.element, make("div", { class: "arrow", "aria-hidden": "true" }, "←"), back.element),
      make("section", { class: "numbers" }, make("div", { class: "grids" }, grids.flatMap((one, index) => [index && !pools ? make("span", { class: "operator" }, index === 1 ? "×" : "=") : null, one.element])), sum),
      filters.element),
    bounds: () => [height, width],
    update() {
      const { k, i, j } = state;
      const c = pools ? k : state.c;
      filters.select(k);
      if (inputs) {
        inputs.select(c);
        inputs.paint(thumbnails(from.dy ?? from.y, from.dy ? "gradients" : "values"));
      }
      for (let place = 0; place < gradients.length; place++) gradients[place] = returned(node, 0, c, Math.floor(place / width), place % width) ?? 0;
      input.retitle(`gradient that comes back to the input, ${colourName(from, c)}`);
      input.paint(gradients, height, width, { palette: "gradients" });
      input.mark("pixel", i, j, 1, 1);
      back.retitle(`gradient of output channel ${channel(node, k)}`);
      back.paint(node.dy.one(k), node.dy.height, node.dy.width, { palette: "gradients" });
      const covers = windowsAt(windows, i, j);
      const first = covers[0];
      const last = covers[covers.length - 1];
      if (!first) back.mark("window", null);
      else back.mark("window", Math.min(first.i, last.i), Math.min(first.j, last.j), Math.abs(last.i - first.i) + 1, Math.abs(last.j - first.j) + 1);
      const shape = shapeOf(covers);
      const found = backward(node, c, i, j);
      const there = covers.map((at) => node.dy.at(k, at.i, at.j));
      if (pools) {
        const given = covers.map((at, index) => (found?.terms ? (found.terms[index].won ? there[index] : 0) : there[index] / share));
        grids[0].paint(given, ...shape, { palette: "gradients", scale: scaleOf(node.dy.one(k)) });
        const won = found?.terms && first ? winner(node, k, first.i, first.j) : null;
        const chosen = won ? won.row * windows.kernel[1] + won.column : -1;
        if (first) grids[1].paint(windowOf(node, k, first.i, first.j), ...windows.kernel, { chosen, scale: scaleOf(from.y.one(k)) });
      } else {
        const weights = covers.map((at) => weightAt(node, k, c, at.row, at.column));
        grids[0].paint(there, ...shape, { palette: "gradients", scale: scaleOf(node.dy.one(k)) });
        grids[1].paint(weights, ...shape, { scale: scaleOf(parameter(node, "weight").values) });
        grids[2].paint(there.map((gradient, index) => gradient * weights[index]), ...shape, { palette: "gradients" });
        if (found) filters.amounts(found.parts, "gradients");
      }
      fill(sum,
        found && !pools && line(
          { value: found.parts[k], name: `Σ through filter ${channel(node, k)}` }, "+",
          { value: found.products - found.parts[k], name: `Σ through the ${whole(node.y.count - 1)} others` },
          node.rest_back ? "+" : null,
          node.rest_back ? { value: found.rest, name: `${whole(hidden(node))} filters that are not in this page, by NumPy` } : null,
          "=", { value: found.value, name: `comes back to row ${i}, column ${j}` },
        ),
        found && pools && line({ value: found.value, name: `from ${covers.length} ${covers.length === 1 ? "window" : "windows"} with this pixel` }),
        verdict(found, { name: "pixel" }),
        gatheredLine(from, c, i, j),
      );
    },
    say: () => `pixel at row ${state.i}, column ${state.j}`,
  };
}

/** Rows and columns of the windows that cover a pixel. */
function shapeOf(covers) {
  const rows = new Set(covers.map((at) => at.i)).size;
  return [rows, rows ? covers.length / rows : 0];
}

const lessons = {
  convolution: "A pixel is in several windows, and each filter looks at all of them. What comes back to it is the sum, over filters and windows, of the gradient of the output times the weight that the pixel met there.",
  max: "Only the greatest number of a window gets its gradient; the others had no influence, and get none.",
  average: "Every number of a window gets an equal share of its gradient.",
  mean: "Every pixel had the same share in the mean, and gets the same share of its gradient.",
};

