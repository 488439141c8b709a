// Every number of the page recomputed, a little at a time, so that the page stays awake.

import { forward, loss } from "./arithmetic.js";
import { consumers, nodes, parameter, source } from "./data.js";
import { backward, biasGradient, gammaGradient, gathered, weightGradient } from "./gradients.js";

const SLICE = 40; // milliseconds

function* places(found) {
  for (let k = 0; k < found.count; k++) {
    for (let i = 0; i < found.height; i++) for (let j = 0; j < found.width; j++) yield [k, i, j];
  }
}

/** All comparisons of this page, each with the node and the words for what was compared. */
export function* comparisons() {
  for (const node of nodes) {
    for (const place of places(node.y)) yield [node, "output", forward(node, ...place)];
    if (node.view === "ends") yield [node, "loss", loss()];
    if (!node.dy) continue;
    if (node.inputs.length === 1) {
      for (const place of places(source(node).y)) yield [node, "gradient of the input", backward(node, ...place)];
    }
    if (consumers(node).length > 1 || node.view === "input" || consumers(node)[0]?.[0].view === "ends") {
      for (const place of places(node.y)) yield [node, "gradient of the output", gathered(node, ...place)];
    }
    yield* parameters(node);
  }
}

function* parameters(node) {
  const weights = parameter(node, "dweight");
  if (weights) {
    const [filters, , height = 1, width = 1] = weights.shape;
    for (let k = 0; k < filters; k++) {
      for (let c = 0; c < source(node).y.count; c++) {
        for (let row = 0; row < height; row++) {
          for (let column = 0; column < width; column++)
            yield [node, "gradient of a weight", weightGradient(node, k, c, row, column)];
        }
      }
    }
  }
  for (let k = 0; k < node.y.count; k++) {
    yield [node, "gradient of a bias", biasGradient(node, k)];
    if (node.view !== "norm") continue;
    yield [node, "gradient of gamma", gammaGradient(node, k)];
    yield [node, "gradient of beta", biasGradient(node, k, "dbeta")];
  }
}

/** Recompute all, telling `progress(count)` now and then; returns the number of comparisons and those that differ. */
export async function audit(progress) {
  let count = 0;
  const wrong = [];
  let pause = performance.now() + SLICE;
  for (const [node, what, found] of comparisons()) {
    if (!found) continue;
    count += 1;
    if (!found.agrees) wrong.push({ node, what, found });
    if (performance.now() > pause) {
      progress(count);
      await new Promise((resume) => setTimeout(resume));
      pause = performance.now() + SLICE;
    }
  }
  return { count, wrong };
}
