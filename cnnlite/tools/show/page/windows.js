// Sliding windows: input and output of a layer with the window on both, and close-ups of poolings.

import { forward, inside, placesOf } from "./arithmetic.js";
import { channelName, source } from "./data.js";
import { fill, make, medium } from "./dom.js";
import { paintMap, scaleOf } from "./paint.js";
import { chooser, grid, line, picture, verdict } from "./parts.js";

export const pad = ({ top_left: [top, left], bottom_right: [bottom, right] }) => [top, left, bottom, right];

/** Height and width of the part of an image that a window covers. */
export const extent = ({ kernel, dilation }) => kernel.map((size, axis) => (size - 1) * dilation[axis] + 1);

export const clamp = (number, count) => Math.max(0, Math.min(count - 1, number));

/** The output whose window is centred at a pixel of the padded image. */
function outputAt(windows, axis, at) {
  return clamp(Math.round((at - (extent(windows)[axis] - 1) / 2) / windows.stride[axis]), windows.out[axis]);
}

/** The numbers of a window of channel `c`, null in the padding. */
export function windowOf(node, c, i, j) {
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

/** Input and output of a windowed layer, with the window on both; moving on either moves the window. */
export function stage(node, state, change) {
  const { windows } = node;
  const input = picture({
    title: "input",
    hatched: pad(windows).some((side) => side > 0),
    pick: (i, j) => change({ i: outputAt(windows, 0, i), j: outputAt(windows, 1, j) }),
  });
  const output = picture({ title: "output", pick: (i, j) => change({ i, j }) });
  return {
    element: make(
      "div",
      { class: "stage" },
      input.element,
      make("div", { class: "arrow", "aria-hidden": "true" }, "→"),
      output.element,
    ),
    update(c) {
      const x = source(node).y;
      input.retitle(`input, ${channelName(source(node), c)}`);
      input.paint(x.one(c), x.height, x.width, { pad: pad(windows) });
      output.retitle(`output, ${channelName(node, state.k)}`);
      output.paint(node.y.one(state.k), node.y.height, node.y.width, { scale: scaleOf(node.y.values) });
      const [row, column] = [state.i * windows.stride[0], state.j * windows.stride[1]];
      input.mark("window", row, column, ...extent(windows));
      output.mark("pixel", state.i, state.j, 1, 1);
    },
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
    element: make(
      "div",
      {},
      channels.element,
      view.element,
      make("section", { class: "numbers" }, make("div", { class: "grids" }, window.element), sum),
    ),
    bounds: () => [node.y.height, node.y.width],
    update() {
      const { k, i, j } = state;
      const found = forward(node, k, i, j);
      view.update(k);
      channels.select(k);
      const chosen = found.won ? found.won.row * windows.kernel[1] + found.won.column : -1;
      const scale = scaleOf(source(node).y.one(k));
      window.paint(windowOf(node, k, i, j), ...windows.kernel, { scale, chosen });
      const most = Math.max(Math.abs(found.value), scale);
      const result = { value: found.value, name: `output, row ${i}, column ${j}`, palette: "values", scale: most };
      fill(
        sum,
        found.won
          ? line(
              {
                value: found.won.x,
                name: `the greatest of ${placesOf(node, k, i, j).length}, at row ${found.won.i}, column ${found.won.j}`,
                palette: "values",
                scale: most,
              },
              "=",
              result,
            )
          : line(
              { value: found.sum, name: `Σ of ${found.places} numbers` },
              "÷",
              { value: found.places, name: "their number, padding included" },
              "=",
              result,
            ),
        verdict(found, { name: "forward" }),
      );
    },
    say: () => `row ${state.i}, column ${state.j}: ${medium(node.y.at(state.k, state.i, state.j))}`,
  };
}
