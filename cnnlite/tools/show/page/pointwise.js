// Close-ups of layers that change each number by itself: activations, batch norm, dropout, scale, and the image.

import { forward, functions, pixel, statistics } from "./arithmetic.js";
import { channelName, colourOf, maps, parameter, source } from "./data.js";
import { fill, make, medium, percent, short } from "./dom.js";
import { backward, biasGradient, gammaGradient, gathered, returned } from "./gradients.js";
import { paintImage, scaleOf } from "./paint.js";
import { chooser, line, picture, verdict } from "./parts.js";
import { gatheredLine } from "./returns.js";
import { thumbnails } from "./windows.js";

const formulas = {
  norm: "y = γ · (x − mean) / √(variance + ε) + β, for each channel",
  dropout: "y = x: only training drops numbers",
  scale: "y = factor · x",
  input: "(byte − mean) / deviation: the network sees numbers around 0, not bytes",
};

export function pointwise(node, state, change, gradients) {
  const palette = gradients ? "gradients" : "values";
  const isImage = node.view === "input";
  const shown = gradients ? node.dy : node.y;
  const flat = node.y.height * node.y.width === 1;
  const channels = chooser({
    title: flat ? "Feature" : "Channel",
    node,
    count: node.y.count,
    choose: (k) => change({ k, c: k }),
  });
  const pick = (i, j) => change({ i, j });
  const before = picture({ title: "input", pick });
  const after = picture({ title: "output", pick });
  const plot = make("div", { class: "plot" });
  const sum = make("div");
  if (shown) channels.paint(thumbnails(shown, palette));
  const isBack = isImage && gradients;
  const arrow = make("div", { class: "arrow", "aria-hidden": "true" }, gradients ? "←" : "→");
  const stage = make("div", { class: "stage" }, isBack ? [] : [before.element, arrow], after.element);
  if (isImage) {
    const canvas = make("canvas", { role: "img", "aria-label": "the image" });
    if (paintImage(canvas))
      stage.prepend(
        make(
          "figure",
          { class: "map" },
          make("figcaption", {}, "the image"),
          make("div", { class: "frame" }, canvas),
          make("p", { class: "legend" }, "in its colours"),
        ),
      );
  }
  return {
    element: make("div", {}, channels.element, flat ? null : stage, make("section", { class: "numbers" }, plot, sum)),
    bounds: () => [node.y.height, node.y.width],
    update() {
      const { k, i, j } = state;
      channels.select(k);
      const { height, width } = node.y;
      const left = isImage ? maps(node.bytes).one(k) : gradients ? comesBack(node, k) : source(node).y.one(k);
      const title = isImage ? "bytes" : gradients ? "gradient of the input" : "input";
      const bytes = isImage ? { palette: colourOf(node, k) ?? "grey", scale: 255, range: [0, 255] } : { palette };
      if (!flat) {
        before.retitle(`${title}, ${channelName(node, k)}`);
        before.paint(left, height, width, bytes);
        before.mark("pixel", i, j, 1, 1);
        after.retitle(
          `${isBack ? "gradient of the image" : gradients ? "gradient of the output" : "output"}, ${channelName(node, k)}`,
        );
        if (shown) after.paint(shown.one(k), height, width, { palette, scale: scaleOf(shown.one(k)) });
        after.mark("pixel", i, j, 1, 1);
      }
      fill(plot, isImage ? null : curve(node, k, i, j));
      fill(sum, gradients ? backwardLines(node, k, i, j) : forwardLines(node, k, i, j));
    },
    say: () => `row ${state.i}, column ${state.j}: ${medium(node.y.at(state.k, state.i, state.j))}`,
  };
}

function comesBack(node, k) {
  const { height, width } = node.y;
  return Float32Array.from(
    { length: height * width },
    (_, at) => returned(node, 0, k, Math.floor(at / width), at % width) ?? 0,
  );
}

function forwardLines(node, k, i, j) {
  const found = forward(node, k, i, j);
  const y = { value: node.y.at(k, i, j), name: "output" };
  const x = node.view === "input" ? null : { value: source(node).y.at(k, i, j), name: "x" };
  const parts = [
    make(
      "p",
      { class: "formula" },
      node.function ? `y = ${functions[node.function].formula}` : (formulas[node.view] ?? ""),
    ),
  ];
  if (node.view === "norm") {
    const { mean, variance, gamma, beta } = statistics(node, k);
    parts.push(
      line(
        { value: gamma, name: parameter(node, "gamma") ? "γ" : "γ: not trained" },
        "· (",
        x,
        "−",
        { value: mean, name: "mean" },
        ") / √(",
        { value: variance, name: "variance" },
        "+",
        { value: node.eps, name: "ε" },
        ") +",
        { value: beta, name: parameter(node, "beta") ? "β" : "β: not trained" },
        "=",
        y,
      ),
    );
    parts.push(
      make(
        "p",
        { class: "soft" },
        "Mean and variance are the running averages of training. In training itself they are those of the batch.",
      ),
    );
  } else if (node.view === "input") {
    const { byte, mean, std } = pixel(node, k, i, j);
    parts.push(
      line(
        "(",
        { value: byte, name: "byte, 0 to 255" },
        "−",
        { value: mean, name: "mean" },
        ") /",
        { value: std, name: "deviation" },
        "=",
        y,
      ),
    );
  } else if (node.view === "scale") parts.push(line({ value: node.factor, name: "factor" }, "·", x, "=", y));
  else if (node.view === "dropout") {
    const factor = maps(node.factors).at(k, i, j);
    parts.push(line(x, "=", y));
    parts.push(
      make(
        "p",
        {},
        `Training drops each number with a probability of ${percent(node.p)}, and multiplies the others by ${medium(1 / (1 - node.p))}. In the training step that this checkpoint would have made next, the first image of the batch would have had `,
        make("b", {}, factor ? `this number times ${medium(factor)}` : "0 in this place"),
        ".",
      ),
    );
  } else parts.push(line(x, "→", y));
  return [...parts, verdict(found, { name: "forward" })];
}

function backwardLines(node, k, i, j) {
  if (!node.dy) return [make("p", {}, "No gradient reaches this layer.")];
  const given = {
    value: node.dy.at(k, i, j),
    name: node.view === "input" ? "gradient of this number" : "gradient of the output",
    palette: "gradients",
    scale: scaleOf(node.dy.one(k)),
  };
  if (node.view === "input") {
    const found = gathered(node, k, i, j);
    return [
      make(
        "p",
        { class: "lesson" },
        "How the loss would change if this number of the image changed: where these gradients are large, the network looks.",
      ),
      line(
        ...(found?.parts ?? []).flatMap(({ other, gradient }, index) => [
          index ? "+" : null,
          { value: gradient, name: `through ${other.kind} ${other.name}` },
        ]),
        "=",
        given,
      ),
      verdict(found, { name: "gathered" }),
    ];
  }
  const found = backward(node, k, i, j);
  const back = {
    value: returned(node, 0, k, i, j) ?? 0,
    name: "gradient of the input",
    palette: "gradients",
    scale: scaleOf(node.dy.one(k)),
  };
  const parts = [];
  if (node.view === "norm") {
    const { gamma, variance } = statistics(node, k);
    parts.push(
      make(
        "p",
        { class: "lesson" },
        "With fixed mean and variance, batch norm is a straight line, and its gradient is the slope. In training it differs: mean and variance depend on all images of the batch, and so do gradients.",
      ),
    );
    parts.push(
      line(
        given,
        "·",
        { value: gamma, name: "γ" },
        "/ √(",
        { value: variance, name: "variance" },
        "+",
        { value: node.eps, name: "ε" },
        ") =",
        back,
      ),
      verdict(found, { name: "pixel", of: "gradient of the input" }),
    );
    const gammas = gammaGradient(node, k);
    const betas = biasGradient(node, k, "dbeta");
    if (gammas)
      parts.push(
        make("p", { class: "formula" }, "Gradient of γ: the sum of gradient times normalized input, over all places."),
        verdict(gammas, { name: "gamma", of: "gradient of γ" }),
      );
    if (betas)
      parts.push(
        make("p", { class: "formula" }, "Gradient of β: the sum of the gradients, over all places."),
        verdict(betas, { name: "beta", of: "gradient of β" }),
      );
  } else if (node.view === "activation") {
    parts.push(make("p", { class: "lesson" }, "What comes back is the gradient times the slope of the curve at x."));
    parts.push(
      line(given, "·", { value: found ? found.slope : Number.NaN, name: "slope at x" }, "=", back),
      verdict(found, { name: "pixel" }),
    );
  } else if (node.view === "scale")
    parts.push(line({ value: node.factor, name: "factor" }, "·", given, "=", back), verdict(found, { name: "pixel" }));
  else
    parts.push(
      make(
        "p",
        { class: "lesson" },
        "Outside of training nothing is dropped, and gradients pass as they are. In training, they are dropped and multiplied where the numbers were.",
      ),
      line(given, "=", back),
      verdict(found, { name: "pixel" }),
    );
  return [...parts, gatheredLine(source(node), k, i, j)];
}

const WIDTH = 340;
const HEIGHT = 210;

/** The curve of an activation, or the line of batch norm or scale, and the point on it. */
function curve(node, k, i, j) {
  const x = source(node).y.at(k, i, j);
  const y = node.y.at(k, i, j);
  const points = pointsOf(node, k, x);
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

function pointsOf(node, k, x) {
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
    node.view === "norm" ? statistics(node, k) : { mean: 0, gamma: node.factor, beta: 0, inverse: 1 };
  return [-most, most].map((at) => [at, gamma * (at - mean) * inverse + beta]);
}
