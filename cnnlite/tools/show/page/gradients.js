// The backward pass once more: what comes back to an input, and the sums of products that make gradients of weights.

import {
  check,
  counted,
  inside,
  rest,
  shared,
  softmax,
  statistics,
  targets,
  value,
  weightAt,
  weightOrNull,
  winner,
} from "./arithmetic.js";
import { consumers, facts, maps, nodes, parameter, source } from "./data.js";
import { functions } from "./functions.js";

/** The gradient that comes back through a node to channel `k` of one of its inputs, as NumPy has it; null if none. */
export function returned(node, which, k, i, j) {
  if (node.view === "sum") return node.dy?.at(k, i, j) ?? null;
  if (node.view === "concat") return node.dy?.at(k + before(node, which), i, j) ?? null;
  if (node.view === "multiply" && consumers(source(node, which)).length > 1) return multiplied(node, which, k, i, j);
  if (node.dx) return node.dx.at(k, i, j);
  return source(node, which).dy?.at(k, i, j) ?? null;
}

/** What a product gives back to one of its branches: the gradient times the other factors, rounded as NumPy does. */
function multiplied(node, which, k, i, j) {
  if (!node.dy || source(node, which).y.values.length !== node.y.values.length) return null;
  return node.inputs.reduce(
    (product, number, other) => (other === which ? product : Math.fround(product * shared(nodes[number].y, k, i, j))),
    node.dy.at(k, i, j),
  );
}

/** All that comes back through a node to channel `k` of one of its inputs, as a map; 0 where there is none. */
export function comesBack(node, which, k) {
  const { height, width } = source(node, which).y;
  return Float32Array.from(
    { length: height * width },
    (_, at) => returned(node, which, k, Math.floor(at / width), at % width) ?? 0,
  );
}

/** The channels of a concatenation before those of its input `which`. */
function before(node, which) {
  return node.inputs.slice(0, which).reduce((total, number) => total + nodes[number].y.count, 0);
}

/** The places `[i, row]` of windows, along an axis, that cover pixel `at`, where it is and where it is mirrored;
 * in the order in which they lie in the output, where places in the window descend. */
function covering(windows, axis, at) {
  const found = [];
  const last = windows.size[axis] - 1;
  for (const where of windows.mirrored ? new Set([at, -at, 2 * last - at]) : [at]) {
    for (let place = 0; place < windows.kernel[axis]; place++) {
      const first = where + windows.top_left[axis] - place * windows.dilation[axis];
      const [out, left] = divide(first, windows.stride[axis]);
      if (left === 0 && out >= 0 && out < windows.out[axis]) found.push([out, place]);
    }
  }
  return found.sort((one, other) => one[0] - other[0] || other[1] - one[1]);
}

const divide = (a, b) => [Math.floor(a / b), ((a % b) + b) % b];

/** Windows that cover a pixel: output i, j and the place of the pixel in the window. */
export function windowsAt(windows, i, j) {
  const columns = covering(windows, 1, j);
  return covering(windows, 0, i).flatMap(([out, row]) =>
    columns.map(([outJ, column]) => ({ i: out, j: outJ, row, column })),
  );
}

function convolution(node, c, i, j) {
  const covers = windowsAt(node.windows, i, j);
  const parts = [];
  let total = 0;
  let sizes = 0;
  for (let k = 0; k < node.dy.count; k++) {
    let sum = 0;
    for (const at of covers) {
      const product = node.dy.at(k, at.i, at.j) * weightAt(node, k, c, at.row, at.column);
      sum += product;
      sizes += Math.abs(product);
    }
    parts.push(sum);
    total += sum;
  }
  const others = rest(node, "rest_back", c, i, j);
  const places = Math.max(node.windows.kernel[0] * node.windows.kernel[1], covers.length);
  const count = places * (node.shape[2] / (node.groups ?? 1)) + 2;
  const more = { parts, rest: others.sum, products: total, covers };
  return check(total + others.sum, returned(node, 0, c, i, j), count, sizes + others.size, more);
}

function linear(node, c) {
  const { values } = parameter(node, "weight");
  const inputs = source(node).y.count;
  const parts = Array.from(node.dy.values, (gradient, k) => gradient * values[k * inputs + c]);
  const products = parts.reduce((all, term) => all + term, 0);
  const size = parts.reduce((all, term) => all + Math.abs(term), 0);
  const others = rest(node, "rest_back", c, 0, 0);
  const numpy = returned(node, 0, c, 0, 0);
  return check(products + others.sum, numpy, node.shape[0] + 2, size + others.size, {
    parts,
    rest: others.sum,
    products,
  });
}

function norm(node, k, i, j) {
  const { mean, gamma, inverse } = statistics(node, k, i, j);
  if (node.statistics) {
    const [g, products, sizes, productSizes] = node.means.map((number) => shared(maps(number), k, i, j));
    const gradient = node.dy.at(k, i, j) * gamma;
    const xhat = (source(node).y.at(k, i, j) - mean) * inverse;
    const size = inverse * (Math.abs(gradient) + sizes + Math.abs(xhat) * productSizes);
    const value = inverse * (gradient - g - xhat * products);
    return check(value, returned(node, 0, k, i, j), node.numbers + 16, size, { g, xhat, products });
  }
  const product = node.dy.at(k, i, j) * gamma * inverse;
  return check(product, returned(node, 0, k, i, j), 3, Math.abs(product));
}

function activation(node, k, i, j) {
  const known = functions[node.function];
  if (!known) return null;
  const x = source(node).y.at(k, i, j);
  const gradient = node.dy.at(k, i, j);
  const slope = known.slope(x, node);
  const size = Math.abs(gradient) * (1 + Math.abs(x) + (node.alpha ?? 0));
  return check(gradient * slope, returned(node, 0, k, i, j), known.count, size, { slope, gradient });
}

function max(node, k, i, j) {
  const terms = windowsAt(node.windows, i, j).map((at) => {
    const won = winner(node, k, at.i, at.j);
    return { ...at, won: won.i === i && won.j === j, gradient: node.dy.at(k, at.i, at.j) };
  });
  const mine = terms.filter((term) => term.won);
  return sumOf(
    mine.map((term) => term.gradient),
    returned(node, 0, k, i, j),
    mine.length,
    { terms },
  );
}

function average(node, k, i, j) {
  const covers = windowsAt(node.windows, i, j);
  const terms = covers.map((at) => node.dy.at(k, at.i, at.j) / counted(node.windows, at.i, at.j));
  return sumOf(terms, returned(node, 0, k, i, j), terms.length + 2, { covers });
}

function flatten(node, c, i, j) {
  const x = source(node).y;
  return check(node.dy.values[(i * x.width + j) * x.count + c], returned(node, 0, c, i, j), 0, 0);
}

const same = (node, k, i, j) => check(node.dy.at(k, i, j), returned(node, 0, k, i, j), 0, 0);

function scale(node, k, i, j) {
  const product = node.factor * node.dy.at(k, i, j);
  return check(product, returned(node, 0, k, i, j), 2, Math.abs(product));
}

function sumOf(terms, numpy, count, more = {}) {
  const total = terms.reduce((all, term) => all + term, 0);
  const size = terms.reduce((all, term) => all + Math.abs(term), 0);
  return check(total, numpy, count, size, more);
}

const ways = { convolution, linear, norm, activation, max, average, mean: average, flatten, scale, dropout: same };

/** Compute once more what comes back through a node to its input; null if the page cannot, or there is no gradient. */
export function backward(node, c, i, j) {
  if (!node.dy || returned(node, 0, c, i, j) === null) return null;
  return ways[node.view]?.(node, c, i, j) ?? null;
}

/** The gradient of a node's output: the sum of what comes back through all that take it. */
export function gathered(node, k, i, j) {
  if (!node.dy) return null;
  if (node.number === facts.last) return logit(k);
  const parts = consumers(node).map(([other, which]) => ({ other, gradient: returned(other, which, k, i, j) }));
  if (parts.some((one) => one.gradient === null)) return null;
  return sumOf(
    parts.map((one) => one.gradient),
    node.dy.at(k, i, j),
    parts.length,
    { parts },
  );
}

/** The gradient for a logit: softmax minus target. */
export function logit(k) {
  const node = nodes[facts.last];
  if (facts.smoothing === null || !node.dy) return null;
  const { powers, total, logs } = softmax();
  const p = powers[k] / total;
  const q = targets()[k];
  const size = facts.weight * (p * (1 + Math.abs(logs[k]) + Math.log(total)) + q);
  return check(facts.weight * (p - q), node.dy.at(k, 0, 0), 16, size, { p, q });
}

/** The sum of products that is the gradient of weight `row, column` for channel `c` of filter `k`. */
export function weightGradient(node, k, c, row, column) {
  const found = parameter(node, "dweight");
  if (!found) return null;
  const x = source(node).y;
  if (node.view === "linear") {
    const product = x.values[c] * node.dy.values[k];
    return check(product, found.values[k * x.count + c], 1, Math.abs(product));
  }
  const { windows } = node;
  const numpy = weightOrNull(node, k, c, row, column, "dweight");
  if (numpy === null) return null;
  const products = new Float64Array(node.dy.height * node.dy.width);
  let total = 0;
  let size = 0;
  for (let i = 0; i < windows.out[0]; i++) {
    for (let j = 0; j < windows.out[1]; j++) {
      const y = inside(windows, 0, i, row);
      const xx = inside(windows, 1, j, column);
      if (y < 0 || xx < 0) continue;
      const product = x.at(c, y, xx) * node.dy.at(k, i, j);
      products[i * windows.out[1] + j] = product;
      total += product;
      size += Math.abs(product);
    }
  }
  return check(total, numpy, windows.out[0] * windows.out[1] + 1, size, { products });
}

/** The gradient of a bias, or of beta: the sum of the gradients of its channel. */
export function biasGradient(node, k, name = "dbias") {
  if (!parameter(node, name)) return null;
  const gradients = node.dy.one(k);
  return sumOf(Array.from(gradients), value(node, name, k), gradients.length + 1);
}

/** The gradient of gamma: the sum of gradient times normalized input. */
export function gammaGradient(node, k) {
  if (!parameter(node, "dgamma")) return null;
  const x = source(node).y.one(k);
  const gradients = node.dy.one(k);
  let total = 0;
  let size = 0;
  gradients.forEach((gradient, index) => {
    const { mean, inverse } = statistics(node, k, Math.floor(index / node.dy.width), index % node.dy.width);
    total += gradient * (x[index] - mean) * inverse;
    size += (Math.abs(gradient * x[index]) + Math.abs(gradient * mean)) * inverse;
  });
  return check(total, value(node, "dgamma", k), gradients.length + 8, size);
}
