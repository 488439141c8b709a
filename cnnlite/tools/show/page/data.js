// The network that this page shows: its layers as nodes, and the float32 numbers that NumPy computed.

const text = (id) => document.getElementById(id).textContent;

export const facts = JSON.parse(text("facts"));

/** All numbers in one array: those of array `n` begin where those of `n - 1` end. */
const numbers = decode(text("numbers"));
const starts = [];
let total = 0;
for (const shape of facts.shapes) {
  starts.push(total);
  total += size(shape);
}

function decode(base64) {
  const letters = atob(base64);
  const bytes = new Uint8Array(letters.length);
  for (let index = 0; index < letters.length; index++) bytes[index] = letters.charCodeAt(index);
  const view = new DataView(bytes.buffer);
  const floats = new Float32Array(bytes.length / 4);
  for (let index = 0; index < floats.length; index++) floats[index] = view.getFloat32(4 * index, true);
  return floats;
}

export function size(shape) {
  return shape.reduce((product, side) => product * side, 1);
}

/** The array of a number, flat, with its shape; null for no number. */
export function array(number) {
  if (number === undefined || number === null) return null;
  const shape = facts.shapes[number];
  return { shape, values: numbers.subarray(starts[number], starts[number] + size(shape)) };
}

/** Maps of an array: `count` of them, `height` x `width`; features are maps of one pixel. */
export function maps(number) {
  const found = array(number);
  if (!found) return null;
  const [count, height = 1, width = 1] = found.shape;
  const { values } = found;
  return {
    count,
    height,
    width,
    values,
    at: (k, i, j) => values[(k * height + i) * width + j],
    one: (k) => values.subarray(k * height * width, (k + 1) * height * width),
  };
}

/** All nodes, with their maps; the last one, made here, is softmax and loss. */
export const nodes = facts.nodes.map((node, number) => ({
  ...node,
  number,
  arrays: {},
  y: maps(node.y),
  dy: maps(node.dy),
  dx: maps(node.dx),
}));
nodes.push({
  kind: "softmax and loss",
  view: "ends",
  name: "",
  path: "train.loss",
  number: nodes.length,
  arrays: {},
  inputs: [facts.last],
  shape: [facts.classes.length],
  channels: null,
  y: maps(facts.probabilities),
  dy: null,
  dx: null,
  parameters: 0,
});

export const source = (node, which = 0) => nodes[node.inputs[which]];

/** The number of a shown channel among all channels of its layer. */
export const channel = (node, k) => (node.channels ? node.channels[k] : k);

const KEEPING = ["norm", "activation", "dropout", "scale", "max", "average", "mean"];
const COLOURS = { 1: ["grey"], 3: ["red", "green", "blue"] };

/** Whether a layer changes the numbers of a channel, but not which channel it is. */
export const keepsChannels = (node) => KEEPING.includes(node.view);

/** The colour of a channel of the image, also behind layers that keep channels; null for other channels. */
export function colourOf(node, k) {
  if (node.view === "input") return COLOURS[node.y.count]?.[k] ?? null;
  return keepsChannels(node) ? colourOf(source(node), k) : null;
}

/** A channel in a sentence: `channel 5`, or its colour. */
export const channelName = (node, k) => colourOf(node, k) ?? `channel ${channel(node, k)}`;

export const hidden = (node) => node.shape[node.shape.length - 1] - node.y.count;

/** Nodes that take the output of a node: [consumer, which of its inputs]. */
export function consumers(node) {
  const found = [];
  for (const other of nodes) {
    other.inputs.forEach((number, which) => {
      if (number === node.number) found.push([other, which]);
    });
  }
  return found;
}

/** A parameter of a node as an array; null if it has none. */
export function parameter(node, name) {
  if (!(name in node.arrays)) node.arrays[name] = array(node[name]);
  return node.arrays[name];
}
