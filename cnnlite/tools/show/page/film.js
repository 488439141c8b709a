// Training as a film: first filters and a few maps, as they were at some steps, with a slider.

import { array, facts, keepsChannels, nodes, source } from "./data.js";
import { fill, make, whole } from "./dom.js";
import { paintBytes, paintMap, scaleOf } from "./paint.js";

/** The section with the film; null for a run without snapshots. */
export function film() {
  if (!facts.film) return null;
  const { steps } = facts.film;
  const rows = { filters: rowOf("filters"), maps: rowOf("maps") };
  const shown = Object.values(rows).filter((row) => row !== null);
  const title = make("output", { class: "moment" });
  const slider = make("input", {
    type: "range",
    min: 0,
    max: steps.length - 1,
    value: steps.length - 1,
    id: "film",
    "aria-label": "training step",
    oninput: () => show(),
  });
  function show() {
    fill(title, `step ${whole(steps[Number(slider.value)])}`);
    for (const row of shown) row.paint(Number(slider.value));
  }
  let timer = 0;
  const play = make(
    "button",
    {
      type: "button",
      onclick: () => {
        if (timer) return stop();
        if (Number(slider.value) === steps.length - 1) slider.value = 0;
        play.textContent = "stop";
        timer = setInterval(() => {
          slider.value = Number(slider.value) + 1;
          show();
          if (Number(slider.value) === steps.length - 1) stop();
        }, 350);
        return show();
      },
    },
    "play",
  );
  function stop() {
    clearInterval(timer);
    timer = 0;
    play.textContent = "play";
  }
  return {
    element: make(
      "section",
      { class: "film" },
      make("h2", {}, "Training as a film"),
      make("p", { class: "soft" }, words(rows)),
      make("div", { class: "controls" }, play, slider, title),
      pictures(rows),
    ),
    repaint: show,
  };
}

/** Canvases for the filters or the maps, and how to paint them as they were at a moment; null if there are none. */
function rowOf(name) {
  const found = array(facts.film[name]);
  if (!found) return null;
  const [, count, ...sides] = found.shape;
  const length = sides.reduce((product, side) => product * side, 1);
  const canvases = Array.from({ length: count }, (_, k) =>
    make("canvas", { role: "img", "aria-label": `${name === "filters" ? "filter" : "map"} ${k}` }),
  );
  return {
    canvases,
    paint(moment) {
      canvases.forEach((canvas, k) => {
        const start = (moment * count + k) * length;
        const values = found.values.subarray(start, start + length);
        if (name === "filters") paintFilter(canvas, values, sides);
        else paintMap(canvas, values, ...sides, scaleOf(values), "values");
      });
    },
  };
}

/** Whether the map of a channel is what its filter gives: whether the layers between them keep channels. */
function arePairs() {
  let node = nodes.find(({ name }) => name !== "" && name === facts.film.layer);
  while (node && keepsChannels(node)) node = source(node);
  return node?.view === "convolution" && node.path === facts.film.place;
}

function words({ filters, maps }) {
  const { place, kind, of } = facts.film;
  const [after, image] = [kind ? ` after ${kind}` : "", of || "one image, always the same"];
  const first = filters && `The filters of the first layer (${place}), each in the colours that it looks for`;
  if (filters && maps && arePairs())
    return `${first}; below each of the first ${maps.canvases.length} its map${after}, of ${image}. From before the first step to the end.`;
  const second = maps && `${filters ? "below them" : "The"} maps${after}, of ${image}`;
  return `${[first, second].filter(Boolean).join("; ")}. From before the first step to the end.`;
}

/** Filters with their maps below them, or in rows of their own; before the maps, the image that they are of. */
function pictures({ filters, maps }) {
  const one = (canvases, text) => make("figure", {}, canvases, make("figcaption", {}, text));
  const row = (...figures) => make("div", { class: "film-row" }, ...figures);
  const image = imageOf();
  const before = image && make("figure", { class: "of" }, image, make("figcaption", {}, "image"));
  if (filters && maps && arePairs())
    return row(
      before,
      filters.canvases.map((canvas, k) => one([canvas, maps.canvases[k] ?? null].filter(Boolean), k)),
    );
  return make(
    "div",
    {},
    filters && row(filters.canvases.map((canvas, k) => one([canvas], k))),
    maps &&
      row(
        before,
        maps.canvases.map((canvas, k) => one([canvas], k)),
      ),
  );
}

function imageOf() {
  const found = array(facts.film.image);
  if (!found) return null;
  const canvas = make("canvas", { role: "img", "aria-label": `the image: ${facts.film.of}` });
  return paintBytes(canvas, found) ? canvas : null;
}

/** Paint a filter: in colours if it sees three channels, else its first channel. */
function paintFilter(canvas, values, [height, width, channels]) {
  const scale = scaleOf(values);
  if (channels !== 3)
    return paintMap(
      canvas,
      values.filter((_, index) => index % channels === 0),
      height,
      width,
      scale,
      "values",
    );
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const picture = context.createImageData(width, height);
  for (let index = 0; index < height * width; index++) {
    const colours = [0, 1, 2].map((c) => 127.5 + (127.5 * values[3 * index + c]) / scale);
    picture.data.set([...colours, 255], 4 * index);
  }
  return context.putImageData(picture, 0, 0);
}
