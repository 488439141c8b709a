// The page: its head, and what the address after # names: the overview, or a layer, forward or backward.

import { closeup } from "./closeup.js";
import { facts, nodes } from "./data.js";
import { fill, make, percent, whole } from "./dom.js";
import { overview } from "./overview.js";
import { paintImage, readColours } from "./paint.js";

const page = document.getElementById("page");
const themes = ["auto", "light", "dark"];
let shown = null;
let place = { number: null, mode: "values" };

function read() {
  const [, number, mode] = location.hash.split("/");
  const known = /^\d+$/.test(number ?? "") && Number(number) < nodes.length;
  return { number: known ? Number(number) : null, mode: mode === "gradients" ? mode : "values" };
}

const address = ({ number, mode }) => `#/${number ?? ""}${mode === "gradients" ? "/gradients" : ""}`;

function go(change) {
  location.hash = address({ ...place, ...change });
}

function head() {
  const image = make("canvas", { class: "portrait", role: "img", "aria-label": `the image: ${facts.source}` });
  const isPicture = paintImage(image);
  return make(
    "header",
    {},
    make("a", { class: "title", href: address({ number: null, mode: place.mode }) }, facts.title),
    isPicture ? image : null,
    guess(),
    make("div", { class: "controls" }, switches(), theme()),
  );
}

/** The most probable classes, and the one that the image is of; whether that is the most probable one. */
function guess() {
  const { classes, label } = facts;
  const probabilities = Array.from(nodes[nodes.length - 1].y.values);
  const order = probabilities.map((_, k) => k).sort((a, b) => probabilities[b] - probabilities[a]);
  const [best] = order;
  const shown = order.filter((k, place) => place < 3 || k === label);
  const outcome =
    label === null
      ? null
      : best === label
        ? make("b", { class: "outcome agrees" }, `✓ right: ${classes[label]}`)
        : make("b", { class: "outcome differs" }, `✗ wrong: ${classes[best]}, not ${classes[label]}`);
  const row = (k) =>
    make(
      "li",
      { class: k === label ? "label" : null },
      make(
        "span",
        { class: "name", title: classes[k] },
        make("span", {}, classes[k]),
        k === label ? make("span", { class: "tag" }, "label") : null,
      ),
      make("span", { class: "track" }, make("span", { style: `width: ${100 * probabilities[k]}%` })),
      make("span", { class: "share" }, percent(probabilities[k])),
    );
  return make(
    "div",
    { class: "guess" },
    make("p", {}, make("span", {}, facts.source), outcome),
    make("ol", { "aria-label": "most probable classes" }, shown.map(row)),
  );
}

function switches() {
  const one = (mode, name) =>
    make("button", { type: "button", "aria-pressed": String(place.mode === mode), onclick: () => go({ mode }) }, name);
  return make(
    "div",
    { class: "modes", role: "group", "aria-label": "what to show" },
    one("values", "forward"),
    one("gradients", "gradients"),
  );
}

function theme() {
  const now = document.documentElement.dataset.theme ?? "auto";
  return make(
    "button",
    {
      type: "button",
      class: "theme",
      onclick: () => {
        document.documentElement.dataset.theme = themes[(themes.indexOf(now) + 1) % themes.length];
        recolour();
        page.querySelector(".theme").replaceWith(theme());
        page.querySelector(".theme").focus();
      },
    },
    `colours: ${now}`,
  );
}

function recolour() {
  readColours();
  shown?.repaint();
}

/** Draw for paper, which is white and shows all at once, or for the screen again. */
function print(isPaper) {
  document.documentElement.toggleAttribute("data-print", isPaper);
  recolour();
}

function render() {
  const before = place;
  const held = document.activeElement?.closest(".modes") ? place.mode : null;
  shown?.close();
  place = read();
  document.documentElement.dataset.mode = place.mode;
  const inside = place.number !== null;
  const look = inside ? closeup(nodes[place.number], place.mode, (number) => go({ number })) : overview(place.mode);
  shown = look;
  fill(page, head(), look.element, foot());
  document.title = inside
    ? `${nodes[place.number].kind} ${nodes[place.number].name} — ${facts.title}`
    : `${facts.title} at work`;
  if (held && before.mode !== place.mode) page.querySelector('.modes [aria-pressed="true"]').focus();
  else if (inside && before.number !== place.number) {
    window.scrollTo(0, 0);
    look.title.focus({ preventScroll: true });
  } else if (!inside && before.number !== null) {
    const card = look.card(before.number);
    card?.focus({ preventScroll: true });
    card?.scrollIntoView({ block: "center" });
  }
  document.documentElement.dataset.place = inside ? address(place).slice(2) : "";
  document.documentElement.dataset.ready = "true";
}

function foot() {
  return make(
    "footer",
    {},
    make(
      "p",
      {},
      `${facts.checkpoint}, step ${whole(facts.step)}; ${whole(facts.parameters)} parameters. Made by cnnlite ${facts.version}; this page makes no requests.`,
    ),
  );
}

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.target.matches("input")) return;
  if (event.key === "Escape" && place.number !== null) go({ number: null });
  else if (event.key === "g" && !event.ctrlKey && !event.metaKey && !event.altKey)
    go({ mode: place.mode === "gradients" ? "values" : "gradients" });
  else if (!(shown.key?.(event) ?? false)) return;
  event.preventDefault();
});
window.addEventListener("hashchange", render);
window.addEventListener("beforeprint", () => print(true));
window.addEventListener("afterprint", () => print(false));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);
readColours();
render();
