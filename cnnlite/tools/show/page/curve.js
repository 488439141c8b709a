// The curve of a layer that changes each number by itself, and the point on it that is looked at.

import { statistics } from "./arithmetic.js";
import { parameter, source } from "./data.js";
import { medium, short } from "./dom.js";
import { functions } from "./functions.js";
import { scaleOf } from "./paint.js";

const WIDTH = 340;
const HEIGHT = 210;

/** The curve of an activation, or the line of batch norm or scale, and the point on it. */
export function curve(node, k, i, j) {
  const x = source(node).y.at(k, i, j);
  const y = node.y.at(k, i, j);
  const points = pointsOf(node, k, i, j, x);
  if (!points) return null;
  const xs = points.map(([at]) => at);
  const ys = [...points.map(([, at]) => at), y];
  const [left, right] = [Math.min(...xs), Math.max(...xs)];
  const [low, high] = [Math.min(...ys, 0), Math.max(...ys, 0)];
  const across = (at) => 8 + ((at - left) / (right - left || 1)) * (WIDTH - 16);
  const up = (at) => HEIGHT - 20 - ((at - low) / (high - low || 1)) * (HEIGHT - 30);
  const beside = (end) => up(0) + (end < 0 ? -6 : 15); // the side of the axis where the curve is not
  const draw = (tag, properties) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(properties)) element.setAttribute(name, value);
    return element;
  };
  const text = (at, height, words, anchor) => {
    const element = draw("text", { class: "tick", x: at, y: height, "text-anchor": anchor });
    element.textContent = words;
    return element;
  };
  const svg = draw("svg", {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
    role: "img",
    "aria-label": `the curve of ${node.kind}, and the point x = ${medium(x)}, y = ${medium(y)} on it`,
  });
  svg.append(
    draw("line", { class: "axis", x1: 0, x2: WIDTH, y1: up(0), y2: up(0) }),
    draw("line", { class: "axis", x1: across(0), x2: across(0), y1: 0, y2: HEIGHT }),
    draw("polyline", {
      class: "curve",
      points: points.map(([a, b]) => `${across(a).toFixed(1)},${up(b).toFixed(1)}`).join(" "),
    }),
    draw("line", { class: "drop", x1: across(x), x2: across(x), y1: up(0), y2: up(y) }),
    draw("line", { class: "drop", x1: across(0), x2: across(x), y1: up(y), y2: up(y) }),
    text(2, beside(ys[0]), short(left), "start"),
    text(WIDTH - 2, beside(ys[points.length - 1]), `x ${short(right)}`, "end"),
    text(across(0) + 5, 12, `y ${short(high)}`, "start"),
    draw("circle", { class: "point", cx: across(x), cy: up(y), r: 5 }),
  );
  return svg;
}

function pointsOf(node, k, i, j, x) {
  if (node.view === "activation") {
    const [left, right] = node.ends;
    const { values } = parameter(node, "curve");
    const points = Array.from(values, (y, index) => [left + ((right - left) * index) / (values.length - 1), y]);
    const known = functions[node.function];
    if (known && x < left) points.unshift([x, known.of(x, node)]);
    if (known && x > right) points.push([x, known.of(x, node)]);
    return points;
  }
  if (node.view !== "norm" && node.view !== "scale") return null;
  const most = Math.max(Math.abs(x), scaleOf(source(node).y.one(k)));
  const { mean, gamma, beta, inverse } =
    node.view === "norm" ? statistics(node, k, i, j) : { mean: 0, gamma: node.factor, beta: 0, inverse: 1 };
  return [-most, most].map((at) => [at, gamma * (at - mean) * inverse + beta]);
}
