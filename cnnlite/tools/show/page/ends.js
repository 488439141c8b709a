// Close-up of the end: logits to probabilities, and probabilities to the loss.

import { forward, loss, softmax, targets } from "./arithmetic.js";
import { facts, nodes } from "./data.js";
import { exact, fill, make, medium, percent, short } from "./dom.js";
import { logit } from "./gradients.js";
import { colour, css } from "./paint.js";
import { line, verdict } from "./parts.js";

export function ends(node, state, change, gradients) {
  const { logits, greatest, powers, total, logs } = softmax();
  const q = targets();
  const whole = loss();
  const body = make("tbody");
  const sum = make("div");
  const order = facts.classes.map((_, k) => k);
  if (order.length > 20) order.sort((a, b) => logits[b] - logits[a]);
  const known = whole !== null;
  const { weight } = facts;
  const weighted = weight === 1 ? "" : " · weight";
  const heads = gradients
    ? [
        "class",
        "probability p",
        ...(known ? ["target q"] : []),
        `${known ? `(p − q)${weighted}: ` : ""}gradient of the logit`,
        "",
      ]
    : [
        "class",
        "logit z",
        "exp(z − max)",
        "probability p",
        "",
        ...(known ? ["target q", `−q · log p${weighted}`] : []),
      ];
  const gradientOf = (k) => (known ? weight * (powers[k] / total - q[k]) : (nodes[facts.last].dy?.values[k] ?? 0));
  const cell = (number) => make("td", { title: exact(number) }, short(number));
  const most = Math.max(...order.map((k) => Math.abs(gradientOf(k)))) || 1;
  const rows = order.map((k) => {
    const p = powers[k] / total;
    const share = gradients ? gradientOf(k) / most / 2 : p;
    const side = !gradients ? "left: 0" : share < 0 ? "right: 50%" : "left: 50%";
    const end = css(colour(gradients ? Math.sign(share) : 1, gradients ? "gradients" : "values"));
    const bars = make(
      "td",
      { class: "bars" },
      make("span", { class: "bar", style: `${side}; width: ${100 * Math.abs(share)}%; background: ${end}` }),
    );
    const name = make(
      "th",
      { scope: "row" },
      make("button", { type: "button", onclick: () => change({ i: k }) }, facts.classes[k]),
      k === facts.label ? make("span", { class: "tag" }, "label") : null,
    );
    const cells = gradients
      ? [cell(p), known && cell(q[k]), cell(gradientOf(k)), bars]
      : [
          cell(logits[k]),
          cell(powers[k]),
          make("td", { title: exact(p) }, percent(p)),
          bars,
          known && cell(q[k]),
          known && cell(q[k] ? -weight * q[k] * logs[k] : 0),
        ];
    const row = make("tr", {}, name, ...cells);
    body.append(row);
    return [k, row];
  });
  const lesson = gradients
    ? `Here the way back begins.${known ? " The gradient of cross-entropy for a logit is simply the probability that the network gave, minus the one it should have given." : ""}`
    : "Softmax turns logits into probabilities: exponentials, divided by their sum. The loss is large where the probability of the right class is small.";
  const unlabelled =
    facts.label === null
      ? ` The picture has no label: its loss is that of the most probable class, ${facts.classes[facts.target]}.`
      : "";
  const smoothing = facts.smoothing
    ? ` The target is smoothed: ${medium(facts.smoothing)} of it is shared by all classes.`
    : "";
  const weights =
    known && weight !== 1 ? ` Images of this class weigh ${medium(weight)} times as much in training.` : "";
  return {
    element: make(
      "div",
      {},
      make("p", { class: "lesson" }, lesson + unlabelled + (known ? smoothing + weights : "")),
      known
        ? null
        : make(
            "p",
            { class: "note" },
            "The loss of this network is not plain cross-entropy: the page shows its value and its gradients, and recomputes the probabilities alone.",
          ),
      make(
        "div",
        { class: "scroll", tabindex: "0", role: "region", "aria-label": "classes" },
        make(
          "table",
          { class: "classes" },
          make(
            "thead",
            {},
            make(
              "tr",
              {},
              heads.map((head) => make("th", { scope: "col" }, head)),
            ),
          ),
          body,
        ),
      ),
      make("section", { class: "numbers" }, sum),
    ),
    bounds: () => [facts.classes.length, 1],
    update() {
      const { i: k } = state;
      for (const [index, row] of rows) row.classList.toggle("chosen", index === k);
      const p = powers[k] / total;
      const factor = weight === 1 ? [] : [", times", { value: weight, name: "weight of the class" }];
      if (gradients) {
        const found = known ? logit(k) : null;
        fill(
          sum,
          known
            ? line({ value: p, name: `p of ${facts.classes[k]}` }, "−", { value: q[k], name: "q" }, ...factor, "=", {
                value: gradientOf(k),
                name: "gradient of the logit",
              })
            : line({ value: gradientOf(k), name: "gradient of the logit, by NumPy" }),
          verdict(found, { name: "logit" }),
        );
        return;
      }
      fill(
        sum,
        line(
          "exp(",
          { value: logits[k], name: `logit of ${facts.classes[k]}` },
          "−",
          { value: greatest, name: "greatest logit" },
          ") /",
          { value: total, name: "Σ of all exponentials" },
          "=",
          { value: p, name: "probability" },
        ),
        verdict(forward(node, k, 0, 0), { name: "forward", of: "probability" }),
        make("h3", {}, "The loss"),
        known
          ? line({ value: whole.value, name: `Σ −q · log p${weighted}` })
          : line({ value: facts.loss, name: "loss, by NumPy" }),
        verdict(whole, { name: "loss", of: "loss" }),
      );
    },
    say: () => `${facts.classes[state.i]}: ${percent(powers[state.i] / total)}`,
  };
}
