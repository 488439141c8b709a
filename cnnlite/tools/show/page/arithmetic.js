// The forward pass once more: each number that NumPy computed in float32, from the numbers that it was computed from.
//
// Sums are made here in float64. NumPy adds the same terms in float32, in an order of its own: that may be off by
// n u / (1 - n u) times the sum of the absolute terms, u = 2^-24, whatever the order (Higham 2002, "Accuracy and
// Stability of Numerical Algorithms", section 4.2). A difference beyond that is a mistake, and shown as one.

import { channel, facts, maps, nodes, parameter, source } from "./data.js";
import { functions } from "./functions.js";

const UNIT = 2 ** -24;
const SMALLEST = 2 ** -149;

/** Compare a value with NumPy's: `count` roundings on terms whose absolute values add up to `size`. */
export function check(value, numpy, count, size, more = {}) {
  const bound = count ? ((count * UNIT) / (1 - count * UNIT)) * size + count * SMALLEST : 0;
  const difference = Math.abs(value - numpy);
  return { value, numpy, bound, difference, agrees: difference <= bound || Object.is(value, numpy), count, ...more };
}

/** The number of row or column `place` of the window of output `out`, or -1 in padding that mirrors nothing. */
export function inside(windows, axis, out, place) {
  const at = out * windows.stride[axis] - windows.top_left[axis] + place * windows.dilation[axis];
  const last = windows.size[axis] - 1;
  if (at >= 0 && at <= last) return at;
  if (!windows.mirrored) return -1;
  return at < 0 ? -at : 2 * last - at;
}

/** Call `visit(row, column, i, j)` for the places of a window that are in the image, i, j being those in the image. */
export function eachPlace(windows, i, j, visit) {
  for (let row = 0; row < windows.kernel[0]; row++) {
    const y = inside(windows, 0, i, row);
    if (y < 0) continue;
    for (let column = 0; column < windows.kernel[1]; column++) {
      const x = inside(windows, 1, j, column);
      if (x >= 0) visit(row, column, y, x);
    }
  }
}

/** The place of input channel `c` among those that filter `k` sees; -1 if it is of another group. */
function placeOf(node, k, c) {
  if (!node.groups) return c; // as in the page; with groups, all channels of a filter are in it
  const count = parameter(node, "weight").shape[1];
  const place = channel(source(node), c) - Math.floor((channel(node, k) * node.groups) / node.shape[2]) * count;
  return place >= 0 && place < count ? place : -1;
}

/** Input channel `c`, or the first one in the page that filter `k` sees, if it does not see `c`. */
export function seen(node, k, c) {
  if (placeOf(node, k, c) >= 0) return c;
  for (let other = 0; other < source(node).y.count; other++) if (placeOf(node, k, other) >= 0) return other;
  return c;
}

/** A weight, or its gradient; null where filter `k` does not see channel `c`. */
export function weightOrNull(node, k, c, row, column, name = "weight") {
  const { shape, values } = parameter(node, name);
  const place = placeOf(node, k, c);
  return place < 0 ? null : values[((k * shape[1] + place) * shape[2] + row) * shape[3] + column];
}

export const weightAt = (node, k, c, row, column) => weightOrNull(node, k, c, row, column) ?? 0;

export const value = (node, name, k, otherwise = 0) => parameter(node, name)?.values[k] ?? otherwise;

/** What channels that are not in the page add: their sum, and the greatest sum of their absolute products. */
export function rest(node, key, k, i, j) {
  const found = node[key];
  return found ? { sum: maps(found.sum).at(k, i, j), size: found.size[k] } : { sum: 0, size: 0 };
}

function convolution(node, k, i, j) {
  const x = source(node).y;
  const parts = new Array(x.count).fill(0);
  let total = 0;
  let sizes = 0;
  for (let c = 0; c < x.count; c++) {
    let part = 0;
    eachPlace(node.windows, i, j, (row, column, y, xx) => {
      const product = x.at(c, y, xx) * weightAt(node, k, c, row, column);
      part += product;
      sizes += Math.abs(product);
    });
    parts[c] = part;
    total += part;
  }
  const others = rest(node, "rest", k, i, j);
  const bias = value(node, "bias", k);
  const count = node.windows.kernel[0] * node.windows.kernel[1] * (source(node).shape[2] / (node.groups ?? 1)) + 2;
  return check(total + others.sum + bias, node.y.at(k, i, j), count, sizes + others.size + Math.abs(bias), {
    parts,
    products: total,
    rest: others.sum,
    bias,
  });
}

function linear(node, k) {
  const x = source(node).y;
  const { values } = parameter(node, "weight");
  const parts = Array.from(x.values, (number, c) => number * values[k * x.count + c]);
  const products = parts.reduce((sum, part) => sum + part, 0);
  const sizes = parts.reduce((sum, part) => sum + Math.abs(part), 0);
  const others = rest(node, "rest", k, 0, 0);
  const bias = value(node, "bias", k);
  const count = source(node).shape[0] + 2;
  const size = sizes + others.size + Math.abs(bias);
  return check(products + others.sum + bias, node.y.at(k, 0, 0), count, size, {
    parts,
    products,
    rest: others.sum,
    bias,
  });
}

/** A number of an array that may have one for all channels, or for all pixels. */
export const shared = ({ count, height, width, at }, k, i, j) =>
  at(Math.min(k, count - 1), Math.min(i, height - 1), Math.min(j, width - 1));

/** Mean, variance, gamma and beta of a channel, at a place in layer norm, and what follows from them. */
export function statistics(node, k, i = 0, j = 0) {
  const own = node.statistics?.map((number) => shared(maps(number), k, i, j));
  const [mean, variance] = own ?? [value(node, "running_mean", k), value(node, "running_var", k)];
  const gamma = value(node, "gamma", k, 1);
  const beta = value(node, "beta", k, 0);
  return { mean, variance, gamma, beta, inverse: 1 / Math.sqrt(variance + node.eps) };
}

function norm(node, k, i, j) {
  const x = source(node).y.at(k, i, j);
  const { mean, gamma, beta, inverse } = statistics(node, k, i, j);
  const size = Math.abs(x * gamma * inverse) + Math.abs(mean * gamma * inverse) + Math.abs(beta);
  return check(gamma * (x - mean) * inverse + beta, node.y.at(k, i, j), node.statistics ? 8 : 4, size, { x });
}

function activation(node, k, i, j) {
  const x = source(node).y.at(k, i, j);
  const known = functions[node.function];
  if (!known) return null;
  return check(known.of(x, node), node.y.at(k, i, j), known.count, 1 + Math.abs(x) + (node.alpha ?? 0), { x });
}

/** The places of a pooling window: value, place in the window, place in the image. */
export function placesOf(node, k, i, j) {
  const x = source(node).y;
  const found = [];
  eachPlace(node.windows, i, j, (row, column, y, xx) => found.push({ x: x.at(k, y, xx), row, column, i: y, j: xx }));
  return found;
}

/** The place of a window that wins: of equal ones the first in reading order. */
export function winner(node, k, i, j) {
  return placesOf(node, k, i, j).reduce((best, place) => (place.x > best.x ? place : best), { x: -Infinity });
}

function max(node, k, i, j) {
  const won = winner(node, k, i, j);
  return check(won.x, node.y.at(k, i, j), 0, 0, { won });
}

/** The numbers of which a window has the mean: padding counts, what is beyond it does not. */
export function counted({ kernel, stride, size, top_left, bottom_right, overhang }, i, j) {
  const along = (axis, out) =>
    Math.min(kernel[axis], top_left[axis] + size[axis] + bottom_right[axis] - overhang[axis] - out * stride[axis]);
  return along(0, i) * along(1, j);
}

function average(node, k, i, j) {
  const count = counted(node.windows, i, j);
  const places = placesOf(node, k, i, j);
  const sum = places.reduce((total, place) => total + place.x, 0);
  const size = places.reduce((total, place) => total + Math.abs(place.x), 0);
  return check(sum / count, node.y.at(k, i, j), count + 2, size / count, { sum, places: count });
}

/** Where a feature of `flatten` comes from: channel, row and column, as shown in the node before. */
export function origin(node, k) {
  const x = source(node);
  const pixels = x.y.height * x.y.width;
  // Shown features are ascending, all channels of a pixel one after the other.
  const pixel = Math.floor(k / x.y.count);
  return pixel < pixels ? [k % x.y.count, Math.floor(pixel / x.y.width), pixel % x.y.width] : [0, 0, 0];
}

function flatten(node, k) {
  const place = origin(node, k);
  return check(source(node).y.at(...place), node.y.at(k, 0, 0), 0, 0, { place });
}

function sum(node, k, i, j) {
  const terms = node.inputs.map((number) => nodes[number].y.at(k, i, j));
  const total = terms.reduce((all, term) => all + term, 0);
  const size = terms.reduce((all, term) => all + Math.abs(term), 0);
  return check(total, node.y.at(k, i, j), terms.length, size, { terms });
}

function multiply(node, k, i, j) {
  const terms = node.inputs.map((number) => shared(nodes[number].y, k, i, j));
  const product = terms.reduce((all, term) => all * term, 1);
  return check(product, node.y.at(k, i, j), terms.length, Math.abs(product), { terms });
}

/** Which input of a concatenation a channel comes from, and which channel of that one it is. */
export function part(node, k) {
  let first = 0;
  for (let which = 0; which < node.inputs.length; which++) {
    const { count } = source(node, which).y;
    if (k < first + count) return [which, k - first];
    first += count;
  }
  return [0, 0];
}

function concat(node, k, i, j) {
  const [which, c] = part(node, k);
  return check(source(node, which).y.at(c, i, j), node.y.at(k, i, j), 0, 0, { which, c });
}

const same = (node, k, i, j) => check(source(node).y.at(k, i, j), node.y.at(k, i, j), 0, 0);

function scale(node, k, i, j) {
  const product = node.factor * source(node).y.at(k, i, j);
  return check(product, node.y.at(k, i, j), 2, Math.abs(product));
}

/** A byte of the image, and the mean and deviation that it is normalized by. */
export function pixel(node, k, i, j) {
  const of = (name) => {
    const { shape, values } = parameter(node, name);
    return shape.length === 1 ? values[k] : values[(k * shape[1] + i) * shape[2] + j];
  };
  return { byte: of("bytes"), mean: of("mean"), std: of("std") };
}

function input(node, k, i, j) {
  const { byte, mean, std } = pixel(node, k, i, j);
  return check((byte - mean) / std, node.y.at(k, i, j), 4, (byte + Math.abs(mean)) / std);
}

/** Logits to probabilities: the exponentials, their sum, and each probability. */
export function softmax() {
  const logits = Array.from(nodes[facts.last].y.values);
  const greatest = Math.max(...logits);
  const powers = logits.map((z) => Math.exp(z - greatest));
  const total = powers.reduce((all, power) => all + power, 0);
  return { logits, greatest, powers, total, logs: logits.map((z) => z - greatest - Math.log(total)) };
}

function ends(node, k) {
  const { powers, total, logs } = softmax();
  const p = powers[k] / total;
  return check(p, node.y.at(k, 0, 0), 16, p * (1 + Math.abs(logs[k]) + Math.log(total)));
}

/** The target as probabilities, with the label smoothing of the config. */
export function targets() {
  const count = facts.classes.length;
  const share = (facts.smoothing ?? 0) / count;
  return facts.classes.map((_, k) => (k === facts.target ? 1 - (facts.smoothing ?? 0) + share : share));
}

export function loss() {
  if (facts.smoothing === null) return null;
  const { logs, total } = softmax();
  const q = targets();
  const terms = logs.map((log, k) => (q[k] ? -facts.weight * q[k] * log : 0));
  const size = terms.reduce((all, term, k) => all + term + facts.weight * q[k] * (1 + Math.log(total)), 0);
  const value = terms.reduce((all, term) => all + term, 0);
  return check(value, facts.loss, 16, size, { terms });
}

const ways = {
  convolution,
  linear,
  norm,
  activation,
  max,
  average,
  mean: average,
  flatten,
  sum,
  concat,
  multiply,
  scale,
  input,
  ends,
  dropout: same,
};

/** Compute output `i, j` of channel `k` once more; null for a layer whose formula this page does not know. */
export function forward(node, k, i, j) {
  return ways[node.view]?.(node, k, i, j) ?? null;
}
