// The whole network: a card for each layer, from the image down to the probabilities, and the paths between them.

import { audit } from "./audit.js";
import { facts, hidden, nodes, source } from "./data.js";
import { fill, make, percent, times, whole } from "./dom.js";
import { film } from "./film.js";
import { BARS, barsIn, onPaper, paintBars, paintImage, paintStrip, stripOf } from "./paint.js";

const SVG = "http://www.w3.org/2000/svg";

/** What a layer does, in a few words. */
export function about(node) {
  const windows = node.windows;
  const moved =
    windows && `${times(...windows.kernel)}, stride ${pair(windows.stride)}${padding(windows)}${dilation(windows)}`;
  const words =
    {
      input: () => facts.source,
      convolution: () =>
        `${whole(node.shape[2])} filters ${times(...windows.kernel, source(node).shape[2] / (node.groups ?? 1))}, stride ${pair(windows.stride)}${padding(windows)}${dilation(windows)}`,
      max: () => `windows ${moved}`,
      average: () => `windows ${moved}`,
      mean: () => "the mean of each map",
      norm: () =>
        `mean and variance of ${!node.statistics ? "each channel" : node.groups ? `${node.groups} groups of channels` : "each place"}`,
      linear: () => `${whole(node.shape[0])} sums of ${whole(source(node).shape[0])} products`,
      flatten: () => "maps to one row",
      dropout: () => `drops ${percent(node.p)} in training`,
      scale: () => `times ${node.factor}`,
      sum: () => `${node.inputs.length} branches added`,
      concat: () => `${node.inputs.length} branches side by side`,
      multiply: () => `${node.inputs.length} branches multiplied`,
      ends: () => `loss ${facts.loss.toPrecision(4)}`,
    }[node.view]?.() ?? "";
  const parameters = node.parameters ? `${whole(node.parameters)} parameters` : "";
  return [words, parameters].filter(Boolean).join(" · ");
}

const pair = ([a, b]) => (a === b ? String(a) : `${a} and ${b}`);

function padding({ top_left: [top, left], bottom_right: [bottom, right], mirrored }) {
  const all = [top, left, bottom, right];
  if (all.every((side) => side === 0)) return "";
  const words = mirrored ? "mirrored padding" : "padding";
  return all.every((side) => side === top)
    ? `, ${words} ${top}`
    : `, ${words} ${top} above, ${bottom} below, ${left} left, ${right} right`;
}

const dilation = ({ dilation: all }) => (all.every((step) => step === 1) ? "" : `, dilation ${pair(all)}`);

export const shapeOf = (node) => times(...node.shape.map((side) => whole(side)));

function card(node, mode) {
  const canvas = make("canvas", { "aria-hidden": "true", height: 40 });
  const more = make("span", { class: "more" });
  const place = node.name ? `layer ${node.name}` : "";
  const element = make(
    "a",
    {
      class: `card ${node.view}`,
      href: mode === "gradients" ? `#/${node.number}/gradients` : `#/${node.number}`,
      "data-node": node.number,
    },
    make(
      "span",
      { class: "head" },
      make("b", {}, node.kind === "input" ? "image" : node.kind),
      make("span", { class: "place" }, place),
      make("span", { class: "shape" }, shapeOf(node)),
    ),
    make("span", { class: "about" }, about(node)),
    canvas,
    more,
  );
  return { element, ...strip(node, mode, canvas, more, () => element.clientWidth - 26) };
}

/** The maps in a card: `measure` gives them their place, so that nothing moves when `draw` paints them. */
function strip(node, mode, canvas, more, room) {
  const gradients = mode === "gradients";
  const found = gradients ? (node.view === "ends" ? nodes[facts.last].dy : node.dy) : node.y;
  const palette = gradients ? "gradients" : "values";
  const isPicture = node.view === "input" && !gradients && [1, 3].includes(node.y.count);
  const isMap = found && found.height * found.width > 1;
  let laid = null;
  return {
    measure() {
      const width = room();
      canvas.hidden = !found || width < 20;
      if (canvas.hidden) return fill(more, gradients ? "no gradient reaches it" : "");
      if (isMap) {
        const side = node.view === "input" ? 64 : found.height > 20 ? 46 : found.height > 7 ? 38 : 30;
        const rows = ["sum", "concat", "multiply", "dropout"].includes(node.view) ? 1 : 2;
        laid = stripOf(found, { width, side, rows, before: isPicture ? 1 : 0 });
      }
      canvas.style.height = `${isMap ? laid.height : BARS}px`;
      const count = isMap ? laid.count - laid.before : barsIn(found.values, width);
      const total = node.shape[node.shape.length - 1];
      const name = isMap ? "channels" : "numbers";
      const rest = count === found.count ? "" : hidden(node) ? `the ${whole(found.count)} of this page` : "all";
      return fill(
        more,
        count < total
          ? `${whole(count)} of ${whole(total)} ${name} shown here${rest && `; open the layer to see ${rest}`}`
          : "",
      );
    },
    draw() {
      if (canvas.hidden) return;
      if (isMap) paintStrip(canvas, found, palette, laid, paintImage);
      else paintBars(canvas, found.values, palette, room());
    },
  };
}

/** Lay out the drawing; `lanes` gets the elements of branches without layers. */
function layOut(items, cards, lanes) {
  return items.flatMap((item) => {
    if (typeof item === "number") return cards[item].element;
    if (item.items)
      return make("section", { class: "group" }, make("h3", {}, item.title), layOut(item.items, cards, lanes));
    const branches = item.branches.map((branch, which) => {
      const title = item.titles[which] ?? null;
      if (branch.length)
        return make("div", { class: "branch" }, title && make("h3", {}, title), layOut(branch, cards, lanes));
      const lane = make("div", { class: "branch lane" }, make("h3", {}, title ?? "the input"));
      lanes.set(`${item.join}:${which}`, lane);
      return lane;
    });
    return [make("div", { class: "branches" }, branches), cards[item.join].element];
  });
}

const lanesOf = (items) =>
  Math.max(
    1,
    ...items.map((item) =>
      item.branches
        ? item.branches.reduce((sum, branch) => sum + (branch.length ? lanesOf(branch) : 0.5), 0)
        : item.items
          ? lanesOf(item.items)
          : 1,
    ),
  );

function drawEdges(svg, graph, cards, lanes, mode) {
  const box = graph.getBoundingClientRect();
  svg.setAttribute("viewBox", `0 0 ${box.width} ${graph.scrollHeight}`);
  svg.style.height = `${graph.scrollHeight}px`;
  const at = (element) => {
    const own = element.getBoundingClientRect();
    return { x: own.left - box.left + own.width / 2, top: own.top - box.top, bottom: own.bottom - box.top };
  };
  const bend = (a, b) => `C ${a[0]} ${(a[1] + b[1]) / 2}, ${b[0]} ${(a[1] + b[1]) / 2}, ${b[0]} ${b[1]}`;
  const paths = nodes.flatMap((node) =>
    node.inputs.map((number, which) => {
      const from = at(cards[number].element);
      const to = at(cards[node.number].element);
      const start = [from.x, from.bottom];
      const end = [to.x, to.top - 5];
      const lane = lanes.get(`${node.number}:${which}`);
      const path = document.createElementNS(SVG, "path");
      if (lane) {
        const { x, top, bottom } = at(lane);
        path.setAttribute("d", `M ${start} ${bend(start, [x, top])} L ${x} ${bottom} ${bend([x, bottom], end)}`);
      } else path.setAttribute("d", `M ${start} ${bend(start, end)}`);
      path.setAttribute(
        mode === "gradients" ? "marker-start" : "marker-end",
        mode === "gradients" ? "url(#up)" : "url(#down)",
      );
      return path;
    }),
  );
  for (const old of svg.querySelectorAll("path.edge")) old.remove();
  for (const path of paths) {
    path.classList.add("edge");
    svg.append(path);
  }
}

function markers() {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "edges");
  svg.setAttribute("aria-hidden", "true");
  svg.innerHTML = `<defs>
<marker id="down" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M 0 0 L 8 4 L 0 8 z"/></marker>
<marker id="up" viewBox="0 0 8 8" refX="2" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M 8 0 L 0 4 L 8 8 z"/></marker></defs>`;
  return svg;
}

export function overview(mode) {
  const cards = nodes.map((node) => card(node, mode));
  const lanes = new Map();
  const svg = markers();
  const graph = make("div", { class: "graph" }, svg, layOut([...facts.drawing, nodes.length - 1], cards, lanes));
  graph.style.minWidth = `${Math.min(12, lanesOf(facts.drawing)) * 148}px`;
  const pictures = film();
  const waiting = new Set(cards);
  const watcher = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        const one = cards[Number(entry.target.dataset.node)];
        if (entry.isIntersecting && waiting.delete(one)) one.draw();
      }
    },
    { rootMargin: "600px" },
  );
  let width = 0;
  const sizes = new ResizeObserver(() => {
    if (graph.clientWidth !== width) {
      width = graph.clientWidth;
      repaint();
    }
    drawEdges(svg, graph, cards, lanes, mode);
  });
  function repaint() {
    for (const one of cards) one.measure();
    for (const one of cards) {
      waiting.add(one);
      watcher.unobserve(one.element);
      if (onPaper()) one.draw();
      else watcher.observe(one.element);
    }
    pictures?.repaint();
  }
  const element = make(
    "main",
    { class: "overview" },
    make("h1", { class: "status" }, `${facts.title}: all layers`),
    make(
      "p",
      { class: "lead" },
      mode === "gradients"
        ? "The gradients of the loss: how it would change with each number. They come back from the loss, at the bottom, up to the image."
        : "What each layer gives for this image. Choose a layer to see how every number of it is made.",
    ),
    facts.whole
      ? null
      : make(
          "p",
          { class: "note" },
          "This network is too large for all of its channels to be in one page: of each layer those are here whose maps vary most. What the others add to a sum is given as one number.",
        ),
    strangers(),
    make("div", { class: "scroll graph-frame" }, graph),
    pictures?.element,
    checking(),
  );
  sizes.observe(graph);
  return {
    element,
    repaint,
    card: (number) => cards[number]?.element,
    close: () => {
      sizes.disconnect();
      watcher.disconnect();
    },
  };
}

function strangers() {
  const found = nodes.filter((node) => node.strange);
  if (!found.length) return null;
  const names = found.map((node) => `${node.kind} ${node.name}`).join(", ");
  return make(
    "p",
    { class: "note" },
    `${names}: gives other numbers in training than here. The gradients of this page are those of a training pass through it, and its maps those outside of training.`,
  );
}

function checking() {
  const result = make("p", { class: "result", role: "status" });
  const button = make(
    "button",
    {
      type: "button",
      onclick: async () => {
        button.disabled = true;
        const { count, wrong } = await audit((done) => fill(result, `${whole(done)} numbers so far …`));
        button.disabled = false;
        if (!wrong.length)
          fill(
            result,
            make("span", { class: "agrees" }, `✓ ${whole(count)} numbers recomputed; all agree with NumPy.`),
          );
        else
          fill(
            result,
            make(
              "span",
              { class: "differs" },
              `✗ ${whole(wrong.length)} of ${whole(count)} numbers DO NOT AGREE, first the ${wrong[0].what} of ${wrong[0].node.kind} ${wrong[0].node.name}.`,
            ),
          );
      },
    },
    "Check every number",
  );
  return make(
    "section",
    { class: "checking" },
    make("h2", {}, "Is that true?"),
    make(
      "p",
      {},
      "This page computes each number that it shows once more, in JavaScript, and compares it with the one that NumPy computed. NumPy adds in 32 bits and in an order of its own; the page, in 64 bits, allows the difference that such an order can make: n · 2⁻²⁴ times the sum of the absolute terms, for n roundings, and no more. Convolutions were computed as sums of products (im2col); training may use Winograd’s algorithm, whose results differ in the last digits.",
    ),
    button,
    result,
  );
}
