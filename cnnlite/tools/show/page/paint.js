// Numbers as colours. Activations and weights are orange above zero and blue below, gradients purple and green.

import { array, facts } from "./data.js";

/** Bytes of the image are light of their colour, from none to all of it. */
const black = [0, 0, 0];
const palettes = Object.fromEntries(
  Object.entries({ red: [255, 0, 0], green: [0, 255, 0], blue: [0, 0, 255], grey: [255, 255, 255] }).map(
    ([name, plus]) => [name, { zero: black, plus, minus: black, power: 1 }],
  ),
);

/** Read the colours of the style sheet, which differ in the light and in the dark. */
export function readColours() {
  const style = getComputedStyle(document.documentElement);
  const read = (name) => {
    const text = style.getPropertyValue(name).trim().slice(1);
    return [0, 2, 4].map((at) => Number.parseInt(text.slice(at, at + 2), 16));
  };
  palettes.values = { zero: read("--zero"), plus: read("--plus"), minus: read("--minus"), power: 0.8 };
  palettes.gradients = { zero: read("--zero"), plus: read("--gplus"), minus: read("--gminus"), power: 0.8 };
}

/** The colour of `share`, from -1 to 1, of the greatest value. */
export function colour(share, palette) {
  const { zero, plus, minus, power } = palettes[palette];
  const end = share < 0 ? minus : plus;
  const amount = Math.min(1, Math.abs(share)) ** power;
  return zero.map((part, index) => Math.round(part + (end[index] - part) * amount));
}

export const css = ([red, green, blue]) => `rgb(${red} ${green} ${blue})`;

const light = ([red, green, blue]) => {
  const linear = [red, green, blue].map((part) =>
    part / 255 <= 0.04 ? part / 3294 : ((part / 255 + 0.055) / 1.055) ** 2.4,
  );
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
};

/** Black or white, whichever stands out more from a colour. */
export const inkOn = (colours) => (light(colours) > 0.179 ? "#000000" : "#ffffff");

/** The greatest absolute value, or nearly: a few outliers do not make all others pale. */
export function scaleOf(values) {
  if (values.length <= 64) return Math.max(1e-30, ...Array.from(values, Math.abs));
  const step = Math.ceil(values.length / 4096);
  const some = [];
  for (let index = 0; index < values.length; index += step) some.push(Math.abs(values[index]));
  some.sort((a, b) => a - b);
  return Math.max(1e-30, some[Math.floor(some.length * 0.995)]);
}

/** Paint a map, one pixel for each number; `pad` is [top, left, bottom, right] of transparent pixels around it. */
export function paintMap(canvas, values, height, width, scale, palette, pad = [0, 0, 0, 0]) {
  canvas.width = width + pad[1] + pad[3];
  canvas.height = height + pad[0] + pad[2];
  const context = canvas.getContext("2d");
  const picture = context.createImageData(width, height);
  for (let index = 0; index < height * width; index++) {
    const [red, green, blue] = colour(values[index] / scale, palette);
    picture.data.set([red, green, blue, 255], 4 * index);
  }
  context.putImageData(picture, pad[1], pad[0]);
}

/** Paint the image itself; returns false if its channels are no colours. */
export const paintImage = (canvas) => paintBytes(canvas, array(facts.nodes[0].bytes));

/** Paint maps of bytes: colours of three, grey of one; returns false for other images. */
export function paintBytes(canvas, { shape: [count, height, width], values }) {
  if (count !== 1 && count !== 3) return false;
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const picture = context.createImageData(width, height);
  for (let index = 0; index < height * width; index++) {
    const colours = [0, 1, 2].map((c) => values[(count === 3 ? c : 0) * height * width + index]);
    picture.data.set([...colours, 255], 4 * index);
  }
  context.putImageData(picture, 0, 0);
  return true;
}

/** Whether the page is drawn for paper. */
export const onPaper = () => document.documentElement.hasAttribute("data-print");

/** How many pixels of a canvas there are for one of the page. */
const sharpness = () => (onPaper() ? 2 : Math.min(2, window.devicePixelRatio || 1));

const small = document.createElement("canvas");

/** The greatest side of maps of which `count` fit in a few rows, and how many rows; else of as many as fit. */
function fitting(count, aspect, { width, side, gap, rows }) {
  const least = [Math.max(24, side * 0.8), 25, 25];
  for (let lines = 1; lines <= rows + 1; lines++) {
    for (let one = side; one >= least[lines - 1]; one--) {
      if (Math.floor((width + gap) / (one * Math.min(1, aspect) + gap)) * lines >= count) return [one, lines];
    }
  }
  return [Math.min(side, 36), rows];
}

/** How maps lie side by side in a strip of `width` pixels: their size, how many in a row, how many in all. */
export function stripOf(found, { width, side: largest, gap = 4, rows: least = 2, before = 0 }) {
  const aspect = found.width / found.height;
  const [side, rows] = fitting(found.count + before, aspect, { width, side: largest, gap, rows: least });
  const [high, wide] = aspect >= 1 ? [side / aspect, side] : [side, side * aspect];
  const across = Math.max(1, Math.floor((width + gap) / (wide + gap)));
  const count = Math.min(found.count + before, across * rows);
  return { width, high, wide, gap, across, count, before, height: Math.ceil(count / across) * (high + gap) - gap };
}

/** Paint maps as `stripOf` lays them out; `first` paints what comes before them. */
export function paintStrip(canvas, found, palette, { width, high, wide, gap, across, count, before, height }, first) {
  const ratio = sharpness();
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.scale(ratio, ratio);
  const scale = scaleOf(found.values);
  for (let index = 0; index < count; index++) {
    if (index < before) first(small);
    else paintMap(small, found.one(index - before), found.height, found.width, scale, palette);
    context.drawImage(small, (index % across) * (wide + gap), Math.floor(index / across) * (high + gap), wide, high);
  }
}

/** How many features are shown as bars in so many pixels. */
export const barsIn = (values, width) => Math.min(values.length, Math.floor(width / 3));

export const BARS = 34; // pixels that bars are high

/** Paint features as a row of bars, above and below a line. */
export function paintBars(canvas, values, palette, width) {
  const ratio = sharpness();
  const count = barsIn(values, width);
  const wide = Math.min(14, width / count);
  const high = BARS;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(high * ratio);
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  const scale = scaleOf(values);
  for (let index = 0; index < count; index++) {
    const share = Math.max(-1, Math.min(1, values[index] / scale));
    context.fillStyle = css(colour(Math.sign(share) * (0.35 + 0.65 * Math.abs(share)), palette));
    const height = Math.max(0.5, (Math.abs(share) * high) / 2);
    context.fillRect(index * wide, share < 0 ? high / 2 : high / 2 - height, Math.max(1, wide - 1), height);
  }
}
