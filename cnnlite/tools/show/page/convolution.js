// Close-up of a convolution: window times filter, and the sum of all products.

import { forward, seen, weightAt } from "./arithmetic.js";
import { channel, channelName, hidden, parameter, source } from "./data.js";
import { fill, make, medium, others, whole } from "./dom.js";
import { paintMap, scaleOf } from "./paint.js";
import { beside, chooser, grid, line, verdict } from "./parts.js";
import { stage, thumbnails, windowOf } from "./windows.js";

export function convolutionForward(node, state, change) {
  const { windows } = node;
  const x = source(node).y;
  const [height, width] = windows.kernel;
  const filters = chooser({
    title: "Filter: one output channel each",
    node,
    count: node.y.count,
    choose: (k) => change({ k }),
  });
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
  const numbers = make("section", { class: "numbers" }, beside(grids, ["×", "="]), sum);
  filters.paint(thumbnails(node.y, "values"));
  const scale = scaleOf(parameter(node, "weight").values);
  const slice = (c) => {
    const found = [];
    for (let row = 0; row < height; row++)
      for (let column = 0; column < width; column++) found.push(weightAt(node, state.k, c, row, column));
    return found;
  };
  return {
    element: make("div", {}, filters.element, view.element, numbers, inputs.element),
    bounds: () => [node.y.height, node.y.width],
    update() {
      const { k, i, j } = state;
      const c = seen(node, k, state.c);
      const found = forward(node, k, i, j);
      view.update(c);
      filters.select(k);
      inputs.select(c);
      inputs.paint((canvas, index) => paintMap(canvas, slice(index), height, width, scale, "values"));
      inputs.amounts(found.parts);
      const window = windowOf(node, c, i, j);
      const weights = slice(c);
      grids[0].paint(window, height, width, { scale: scaleOf(x.one(c)) });
      grids[1].retitle(`filter ${channel(node, k)}, ${channelName(source(node), c)}`);
      grids[1].paint(weights, height, width, { scale });
      grids[2].paint(
        window.map((number, place) => (number === null ? null : number * weights[place])),
        height,
        width,
      );
      const most = Math.max(...found.parts.map(Math.abs), Math.abs(found.value), 1e-30);
      fill(
        sum,
        line(
          { value: found.parts[c], name: `Σ of these ${height * width} products`, palette: "values", scale: most },
          x.count > 1 ? "+" : null,
          x.count > 1
            ? {
                value: found.products - found.parts[c],
                name: `Σ of ${others(x.count - 1, "channel")}`,
                palette: "values",
                scale: most,
              }
            : null,
          node.rest ? "+" : null,
          node.rest
            ? {
                value: found.rest,
                name: `${whole(hidden(source(node)))} channels that are not in this page, by NumPy`,
                palette: "values",
                scale: most,
              }
            : null,
          parameter(node, "bias") ? "+" : null,
          parameter(node, "bias") ? { value: found.bias, name: "bias", palette: "values", scale: most } : null,
          "=",
          {
            value: found.value,
            name: `output, channel ${channel(node, k)}, row ${i}, column ${j}`,
            palette: "values",
            scale: most,
          },
        ),
        verdict(found, { name: "forward" }),
      );
    },
    say: () => `row ${state.i}, column ${state.j}: ${medium(node.y.at(state.k, state.i, state.j))}`,
  };
}
