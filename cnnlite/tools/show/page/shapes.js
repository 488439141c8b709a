// Close-ups of layers that move numbers, or join them: flatten, sums, products, concatenations; and of unknown layers.

import { forward, part } from "./arithmetic.js";
import { array, channel, channelName, colourOf, nodes, source } from "./data.js";
import { exact, fill, make, medium, percent, times } from "./dom.js";
import { backward, comesBack, returned } from "./gradients.js";
import { scaleOf } from "./paint.js";
import { chooser, line, picture, verdict } from "./parts.js";
import { gatheredLine } from "./returns.js";
import { thumbnails } from "./windows.js";

/** A map of one channel, or nothing where it has a single pixel. */
function shown(found, pick) {
  return found.height * found.width > 1 ? picture({ title: "", pick }) : null;
}

export function flatten(node, state, change, gradients) {
  const from = source(node);
  const { height, width, count } = from.y;
  const palette = gradients ? "gradients" : "values";
  const numbers = gradients ? from.dy : from.y;
  const channels = chooser({ title: "Channel", node: from, count, choose: (c) => change({ c }) });
  const map = shown(from.y, (i, j) => change({ i, j }));
  const sum = make("div");
  if (numbers) channels.paint(thumbnails(numbers, palette));
  return {
    element: make(
      "div",
      {},
      make(
        "p",
        { class: "lesson" },
        "The maps become one long row: pixel after pixel, and of each pixel channel after channel. No number changes, and gradients go back the same way.",
      ),
      channels.element,
      make("div", { class: "stage" }, map?.element),
      make("section", { class: "numbers" }, sum),
    ),
    bounds: () => [height, width],
    update() {
      const { c, i, j } = state;
      channels.select(c);
      if (numbers && map) {
        map.retitle(channelName(from, c));
        map.paint(numbers.one(c), height, width, { palette });
        map.mark("pixel", i, j, 1, 1);
      }
      const place = (i * width + j) * count + c;
      const all = from.shape[from.shape.length - 1];
      const at = (i * width + j) * all + channel(from, c);
      const found = gradients ? backward(node, c, i, j) : forward(node, place, 0, 0);
      fill(
        sum,
        make(
          "p",
          { class: "formula" },
          `(row ${i} · ${width} + column ${j}) · ${all} channels + channel ${channel(from, c)}${colourOf(from, c) ? ` (${colourOf(from, c)})` : ""} = feature ${at}`,
        ),
        found &&
          line(
            { value: gradients ? returned(node, 0, c, i, j) : from.y.at(c, i, j), name: `row ${i}, column ${j}` },
            gradients ? "←" : "→",
            { value: found.value, name: `feature ${at}` },
          ),
        gradients && !found
          ? make("p", {}, "No gradient reaches this layer.")
          : verdict(found, { name: gradients ? "pixel" : "forward" }),
        gradients ? gatheredLine(from, c, i, j) : null,
      );
    },
    say: () => `row ${state.i}, column ${state.j}`,
  };
}

const joins = {
  sum: {
    operator: "+",
    lesson: "What the branches give is added, number by number; each branch gets the whole gradient back.",
    back: "goes back to each branch as it is",
  },
  multiply: {
    operator: "·",
    lesson:
      "What the branches give is multiplied, number by number; a gate, which gives one number for each channel, multiplies all pixels. Each branch gets the gradient times the other factors back, a gate the sum of that over all pixels.",
    back: "goes back to each branch times the other factors",
  },
  concat: {
    lesson:
      "The channels of the branches lie one after the other; each branch gets the gradients of its own channels back.",
  },
};

export function join(node, state, change, gradients) {
  const palette = gradients ? "gradients" : "values";
  const numbers = gradients ? node.dy : node.y;
  const way = joins[node.view];
  const pick = (i, j) => change({ i, j });
  const channels = chooser({ title: "Channel of the output", node, count: node.y.count, choose: (k) => change({ k }) });
  const inputs = node.inputs.map((number) => shown(nodes[number].y, pick));
  const output = shown(node.y, pick);
  const sum = make("div");
  if (numbers) channels.paint(thumbnails(numbers, palette));
  const drop = node.drop_probability
    ? ` In training, the body is left out of a step with a probability of ${percent(node.drop_probability)}.`
    : "";
  const operator = (text) => make("span", { class: "operator" }, text);
  const one = make("div", { class: "stage" });
  return {
    element: make(
      "div",
      {},
      make("p", { class: "lesson" }, way.lesson, drop),
      channels.element,
      one,
      make("section", { class: "numbers" }, sum),
    ),
    bounds: () => [node.y.height, node.y.width],
    update() {
      const { k, i, j } = state;
      channels.select(k);
      const { height, width } = node.y;
      const taken = way.operator ? node.inputs.map((_, which) => [which, k]) : [part(node, k)];
      const pictures = [];
      for (const [which, c] of taken) {
        const from = source(node, which);
        const map = inputs[which];
        if (!map) continue;
        map.retitle(
          `${node.residual ? ["body", "shortcut"][which] : `branch ${which + 1}`}: ${from.kind} ${from.name}, ${channelName(from, c)}`,
        );
        map.paint(gradients ? comesBack(node, which, c) : from.y.one(c), height, width, { palette });
        map.mark("pixel", i, j, 1, 1);
        if (pictures.length) pictures.push(operator(gradients ? "and" : way.operator));
        pictures.push(map.element);
      }
      if (output && numbers) {
        output.retitle(`output, ${channelName(node, k)}`);
        output.paint(numbers.one(k), height, width, { palette });
        output.mark("pixel", i, j, 1, 1);
        pictures.push(operator(gradients ? "←" : way.operator ? "=" : "→"), output.element);
      }
      if (one.childElementCount !== pictures.length || one.firstElementChild !== pictures[0]) fill(one, pictures);
      const found = forward(node, k, i, j);
      if (gradients) {
        fill(
          sum,
          numbers
            ? line({
                value: node.dy.at(k, i, j),
                name: way.back ?? `goes back to branch ${part(node, k)[0] + 1} as it is`,
                palette,
                scale: scaleOf(numbers.one(k)),
              })
            : make("p", {}, "No gradient reaches this layer."),
          taken.map(([which, c]) => gatheredLine(source(node, which), c, i, j)),
        );
        return;
      }
      const terms = way.operator
        ? node.inputs.flatMap((number, which) => [
            which ? way.operator : null,
            { value: found.terms[which], name: `${nodes[number].kind} ${nodes[number].name}` },
          ])
        : [{ value: found.value, name: `branch ${found.which + 1}` }];
      fill(
        sum,
        line(...terms, "=", { value: found.value, name: `row ${i}, column ${j}` }),
        verdict(found, { name: "forward" }),
      );
    },
    say: () => `row ${state.i}, column ${state.j}: ${medium(node.y.at(state.k, state.i, state.j))}`,
  };
}

/** A layer that somebody registered: its maps, shapes and parameters. */
export function generic(node, state, change, gradients) {
  const palette = gradients ? "gradients" : "values";
  const numbers = gradients ? node.dy : node.y;
  const from = source(node);
  const channels = chooser({ title: "Channel of the output", node, count: node.y.count, choose: (k) => change({ k }) });
  const output = shown(node.y, (i, j) => change({ i, j }));
  const before = chooser({
    title: "Channel of the input",
    node: from,
    count: from.y.count,
    choose: (c) => change({ c }),
  });
  const input = shown(from.y, null);
  const sum = make("div");
  if (numbers) channels.paint(thumbnails(numbers, palette));
  const given = gradients ? from.dy : from.y;
  if (given) before.paint(thumbnails(given, palette));
  const listed = (node.listed ?? []).map(({ name, shape, trained, values }) =>
    make(
      "details",
      {},
      make("summary", {}, `${name}: ${times(...shape)}${trained ? "" : ", not trained"}`),
      values === undefined
        ? make("p", {}, "too many numbers for this page")
        : make("p", { class: "list" }, Array.from(array(values).values, exact).join("  ")),
    ),
  );
  return {
    element: make(
      "div",
      {},
      make(
        "p",
        { class: "lesson" },
        `A layer of its own kind, ${node.kind}: here are the numbers that it got, gave and was trained to.`,
      ),
      before.element,
      channels.element,
      make("div", { class: "stage" }, input?.element, output?.element),
      make("section", { class: "numbers" }, sum, listed),
    ),
    bounds: () => [node.y.height, node.y.width],
    update() {
      const { k, i, j } = state;
      const c = Math.min(state.c, from.y.count - 1);
      channels.select(k);
      before.select(c);
      if (input && given) {
        input.retitle(`input, ${channelName(from, c)}`);
        input.paint(given.one(c), from.y.height, from.y.width, { palette });
      }
      if (output && numbers) {
        output.retitle(`output, ${channelName(node, k)}`);
        output.paint(numbers.one(k), node.y.height, node.y.width, { palette });
        output.mark("pixel", i, j, 1, 1);
      }
      fill(
        sum,
        numbers
          ? line({ value: numbers.at(k, i, j), name: gradients ? "gradient of the output" : "output" })
          : make("p", {}, "No gradient reaches this layer."),
        verdict(null),
      );
    },
    say: () => `row ${state.i}, column ${state.j}`,
  };
}
