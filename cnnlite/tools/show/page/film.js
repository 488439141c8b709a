// Training as a film: first filters and a few maps, as they were at some steps, with a slider.

import { array, facts } from "./data.js";
import { fill, make, whole } from "./dom.js";
import { paintMap, scaleOf } from "./paint.js";

/** The section with the film; null for a run without snapshots. */
export function film() {
  if (!facts.film) return null;
  const { steps, filters, maps, place } = facts.film;
  const kernels = array(filters);
  const pictures = array(maps);
  const title = make("output", { class: "moment" });
  const rows = [make("div", { class: "film-row" }), make("div", { class: "film-row maps" })];
  const slider = make("input", {
    type: "range",
    min: 0,
    max: steps.length - 1,
    value: steps.length - 1,
    id: "film",
    "aria-label": "training step",
    oninput: () => show(),
  });
  const canvases = (found, row) => {
    if (!found) return [];
    return Array.from({ length: found.shape[1] }, () => {
      const canvas = make("canvas", { "aria-hidden": "true" });
      row.append(canvas);
      return canvas;
    });
  };
  const first = canvases(kernels, rows[0]);
  const second = canvases(pictures, rows[1]);
  const one = (found, moment, index) => {
    const length = found.values.length / found.shape[0] / found.shape[1];
    const start = (moment * found.shape[1] + index) * length;
    return found.values.subarray(start, start + length);
  };
  function show() {
    const moment = Number(slider.value);
    fill(title, `step ${whole(steps[moment])}`);
    first.forEach((canvas, index) => {
      paintFilter(canvas, one(kernels, moment, index), kernels.shape.slice(2));
    });
    second.forEach((canvas, index) => {
      const values = one(pictures, moment, index);
      paintMap(canvas, values, pictures.shape[2], pictures.shape[3], scaleOf(values), "values");
    });
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
      make(
        "p",
        { class: "soft" },
        `${kernels ? `The filters of the first layer (${place})` : ""}${kernels && pictures ? ", and below them " : ""}${pictures ? "some maps of one fixed image" : ""}, from before the first step to the end.`,
      ),
      make("div", { class: "controls" }, play, slider, title),
      ...rows,
    ),
    repaint: show,
  };
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
