// Close-ups of layers that change each number by itself: activations, batch norm, dropout, scale, and the image.

import { forward, pixel, statistics } from "./arithmetic.js";
import { curve } from "./curve.js";
import { channelName, colourOf, maps, parameter, source } from "./data.js";
import { fill, make, medium, percent, whole } from "./dom.js";
import { functions } from "./functions.js";
import { backward, biasGradient, comesBack, gammaGradient, gathered, returned } from "./gradients.js";
import { paintImage, scaleOf } from "./paint.js";
import { chooser, line, picture, verdict } from "./parts.js";
import { gatheredLine } from "./returns.js";
import { thumbnails } from "./windows.js";

const formulas = {
  norm: "y = γ · (x − mean) / √(variance + ε) + β",
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
      const left = isImage ? maps(node.bytes).one(k) : gradients ? comesBack(node, 0, k) : source(node).y.one(k);
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
    const { mean, variance, gamma, beta } = statistics(node, k, i, j);
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
    parts.push(make("p", { class: "soft" }, meaning(node)));
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

/** Where mean and variance come from. */
function meaning(node) {
  if (!node.statistics)
    return "Mean and variance are the running averages of training. In training itself they are those of the batch.";
  return node.groups
    ? `Mean and variance are those of ${whole(node.shape[node.shape.length - 1] / node.groups)} channels over all pixels of this image, by NumPy.`
    : "Mean and variance are those of all channels at this place, by NumPy.";
}

function affine(node, k) {
  const gammas = gammaGradient(node, k);
  const betas = biasGradient(node, k, "dbeta");
  const parts = [];
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
  return parts;
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
  if (node.statistics) {
    const { variance } = statistics(node, k, i, j);
    parts.push(
      make(
        "p",
        { class: "lesson" },
        "Each number also moves the mean and the variance of those it is normalized with, x̂ = (x − mean) / √(variance + ε): what comes back is left of the gradient without its mean, and without what would only stretch them.",
      ),
      line(
        "(",
        {
          ...given,
          name: "gradient of the output, times γ",
          value: given.value * (parameter(node, "gamma")?.values[k] ?? 1),
        },
        "−",
        { value: found?.g ?? 0, name: "mean of those, by NumPy" },
        "−",
        { value: found?.xhat ?? 0, name: "x̂" },
        "·",
        { value: found?.products ?? 0, name: "mean of those times x̂, by NumPy" },
        ") / √(",
        { value: variance, name: "variance" },
        "+",
        { value: node.eps, name: "ε" },
        ") =",
        back,
      ),
      verdict(found, { name: "pixel", of: "gradient of the input" }),
      ...affine(node, k),
    );
  } else if (node.view === "norm") {
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
      ...affine(node, k),
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
