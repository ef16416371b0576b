/** The small ops in float64 on flat row-major arrays, each with its gradients written out by hand. Uses nothing of `src`. */

type Numbers = ArrayLike<number>;

const sigmoid = (x: number) => (x >= 0 ? 1 / (1 + Math.exp(-x)) : Math.exp(x) / (1 + Math.exp(x)));
const softplus = (x: number) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));

/** An activation and its slope. */
const activations = {
  none: (x: number) => [x, 1],
  silu: (x: number) => [x * sigmoid(x), sigmoid(x) * (1 + x * sigmoid(-x))],
  sigmoid: (x: number) => [sigmoid(x), sigmoid(x) * sigmoid(-x)],
} as const;
export type Activation = keyof typeof activations;

/** y = silu(gate) * up. */
export function swiGluOracle(gate: Numbers, up: Numbers, dy: Numbers) {
  const n = gate.length;
  const [y, dGate, dUp] = [new Float64Array(n), new Float64Array(n), new Float64Array(n)];
  for (let i = 0; i < n; i++) {
    const [a, slope] = activations.silu(gate[i]);
    y[i] = a * up[i];
    dGate[i] = dy[i] * up[i] * slope;
    dUp[i] = dy[i] * a;
  }
  return { y, dGate, dUp };
}

/**
 * y = x * r * weight * act(gate) with r = (meanFactor * sum(x^2) + eps)^-1/2, row by row (rows of `D`).
 * With u = dy * weight * act(gate):  dx = r * u - r^3 * meanFactor * x * (x . u).
 */
export function normOracle(
  { x, gate, weight }: { x: Numbers; gate?: Numbers; weight?: Numbers },
  { D, eps, meanFactor, activation = 'none' }: { D: number; eps: number; meanFactor: number; activation?: Activation },
  dy: Numbers,
) {
  const n = x.length;
  const [y, dx, dGate, dWeight] = [n, n, n, D].map((size) => new Float64Array(size));
  for (let row = 0; row < n; row += D) {
    let [squares, dot] = [0, 0];
    const act = Array.from({ length: D }, (_, i) => (gate ? activations[activation](gate[row + i]) : [1, 0]));
    const u = Array.from({ length: D }, (_, i) => dy[row + i] * (weight?.[i] ?? 1) * act[i][0]);
    for (let i = 0; i < D; i++) {
      squares += x[row + i] ** 2;
      dot += x[row + i] * u[i];
    }
    const r = (meanFactor * squares + eps) ** -0.5;
    for (let i = 0; i < D; i++) {
      const [at, w] = [row + i, weight?.[i] ?? 1];
      y[at] = x[at] * r * w * act[i][0];
      dx[at] = r * u[i] - r ** 3 * meanFactor * x[at] * dot;
      dGate[at] = dy[at] * x[at] * r * w * act[i][1];
      dWeight[i] += dy[at] * x[at] * r * act[i][0];
    }
  }
  return { y, dx, dGate, dWeight };
}
