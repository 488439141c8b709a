// The activations: what each does to a number, and its slope there.

const sigmoid = (x) => (1 + Math.tanh(x / 2)) / 2;
const GELU = Math.sqrt(2 / Math.PI);
const bend = (x) => Math.tanh(GELU * (x + 0.044715 * x ** 3));
const bell = (x) => Math.exp((-x * x) / 2) / Math.sqrt(2 * Math.PI);
const hard = (x) => Math.min(Math.max(x / 6 + 0.5, 0), 1);

/** The distribution function of a normal variable, by its series (Marsaglia 2004, "Evaluating the Normal Distribution"). */
function normal(x) {
  if (Math.abs(x) > 8) return x > 0 ? 1 : 0;
  let term = x;
  let sum = 0;
  for (let n = 1; sum + term !== sum; n += 2, term *= (x * x) / n) sum += term;
  return 0.5 + sum * bell(x);
}

/** Activations by name: value, derivative, number of roundings, and the size of what is rounded. */
export const functions = {
  relu: { of: (x) => Math.max(x, 0), slope: (x) => (x > 0 ? 1 : 0), count: 0, formula: "max(x, 0)" },
  leaky_relu: {
    of: (x, { slope }) => (x > 0 ? x : slope * x),
    slope: (x, { slope }) => (x > 0 ? 1 : slope),
    count: 4,
    formula: "x if x > 0, slope · x otherwise",
  },
  elu: {
    of: (x, { alpha }) => (x > 0 ? x : alpha * Math.expm1(x)),
    slope: (x, { alpha }) => (x > 0 ? 1 : alpha * Math.exp(x)),
    count: 16,
    formula: "x if x > 0, α · (exp(x) − 1) otherwise",
  },
  sigmoid: { of: sigmoid, slope: (x) => sigmoid(x) * (1 - sigmoid(x)), count: 16, formula: "1 / (1 + exp(−x))" },
  tanh: { of: Math.tanh, slope: (x) => 1 - Math.tanh(x) ** 2, count: 16, formula: "tanh(x)" },
  silu: {
    of: (x) => x * sigmoid(x),
    slope: (x) => sigmoid(x) * (1 + x * (1 - sigmoid(x))),
    count: 16,
    formula: "x · sigmoid(x)",
  },
  gelu: {
    of: (x) => (x * (1 + bend(x))) / 2,
    slope: (x) => (1 + bend(x)) / 2 + (x / 2) * (1 - bend(x) ** 2) * GELU * (1 + 3 * 0.044715 * x * x),
    count: 16,
    formula: "x · (1 + tanh(√(2/π) · (x + 0.044715 x³))) / 2",
  },
  "exact gelu": {
    of: (x) => x * normal(x),
    slope: (x) => normal(x) + x * bell(x),
    count: 16,
    formula: "x · Φ(x), Φ(x) being the probability of a normal variable below x",
  },
  softplus: {
    of: (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x))),
    slope: sigmoid,
    count: 16,
    formula: "log(1 + exp(x))",
  },
  hard_sigmoid: {
    of: hard,
    slope: (x) => (Math.abs(x) < 3 ? 1 / 6 : 0),
    count: 4,
    formula: "x / 6 + 1/2, at least 0 and at most 1",
  },
  hard_swish: {
    of: (x) => x * hard(x),
    slope: (x) => (Math.abs(x) < 3 ? x / 3 + 0.5 : hard(x)),
    count: 8,
    formula: "x · (x / 6 + 1/2), the second factor at least 0 and at most 1",
  },
};
