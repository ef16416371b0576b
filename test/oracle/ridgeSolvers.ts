/** Other ways to what Gated KalmaNet solves, each number rounded by `round` (Math.fround: float32): what they lose, and where. */
import { frobenius, residual } from './gatedKalmaNet.js';

type Round = (x: number) => number;

/** ||b - (H + r f I) x|| / ||b||, in float64. */
export function relativeResidual(
  H: ArrayLike<number>,
  f: number,
  x: ArrayLike<number>,
  b: ArrayLike<number>,
  ridgeRatio: number,
): number {
  return Math.hypot(...residual(H, ridgeRatio * f, x, b)) / Math.hypot(...Array.from(b));
}

/** Gradient descent with the best constant step for a spectrum in [lambda, lambda + f]: as many products with H as the Chebyshev iteration. */
export function gradientDescent(
  H: ArrayLike<number>,
  f: number,
  b: ArrayLike<number>,
  ridgeRatio: number,
  numIterations: number,
  round: Round,
): Float64Array {
  const step = round(2 / (2 * ridgeRatio * f + f));
  let x = Float64Array.from(b, (y) => round(step * y));
  for (let n = 0; n < numIterations; n++) {
    const r = residual(H, ridgeRatio * f, x, b, round);
    x = x.map((y, i) => round(y + round(step * r[i])));
  }
  return x;
}

/** Conjugate gradients for (H + r f I) x = b, for a number of steps that is given: no test of convergence. */
export function conjugateGradients(
  H: ArrayLike<number>,
  f: number,
  b: ArrayLike<number>,
  ridgeRatio: number,
  numIterations: number,
  round: Round,
): Float64Array {
  const zero = new Float64Array(b.length);
  const dot = (x: Float64Array, y: Float64Array) => x.reduce((sum, value, i) => round(sum + round(value * y[i])), 0);
  let [x, r, p] = [zero, Float64Array.from(b), Float64Array.from(b)];
  let square = dot(r, r);
  for (let n = 0; n < numIterations; n++) {
    const Ap = residual(H, ridgeRatio * f, p, zero, round).map((y) => -y);
    const length = round(square / dot(p, Ap));
    x = x.map((y, i) => round(y + round(length * p[i])));
    r = r.map((y, i) => round(y - round(length * Ap[i])));
    const next = dot(r, r);
    p = r.map((y, i) => round(y + round(round(next / square) * p[i])));
    square = next;
  }
  return x;
}

/**
 * The Kalman filter, that is recursive least squares with forgetting: P = (H_t + lambda_0 a^t I)^-1 by the lemma of Sherman, Morrison and Woodbury,
 * P_t = (P - P k k^T P / (a + k^T P k)) / a, from P_0 = I / lambda_0. Keys [T, D] flat.
 * @returns P_T [D, D]
 */
export function kalmanInverse(
  keys: ArrayLike<number>,
  D: number,
  decay: number,
  lambda0: number,
  round: Round,
): Float64Array {
  let P = Float64Array.from({ length: D * D }, (_, i) => (i % (D + 1) === 0 ? round(1 / lambda0) : 0));
  for (let t = 0; t < keys.length / D; t++) {
    const k = Float64Array.from({ length: D }, (_, i) => keys[t * D + i]);
    const Pk = residual(P, 0, k, new Float64Array(D), round).map((y) => -y);
    const below = round(decay + k.reduce((sum, y, i) => round(sum + round(y * Pk[i])), 0));
    P = P.map((y, c) => round(round(y - round(round(Pk[Math.floor(c / D)] * Pk[c % D]) / below)) / decay));
  }
  return P;
}

/** Solves A x = b by elimination with pivots; A [n, n] and b [n, m] flat, x [n, m]. */
export function eliminate(A: ArrayLike<number>, b: ArrayLike<number>): Float64Array {
  const n = Math.sqrt(A.length);
  const m = b.length / n;
  const rows = Array.from({ length: n }, (_, i) => [
    ...Array.from({ length: n }, (_, j) => A[i * n + j]),
    ...Array.from({ length: m }, (_, j) => b[i * m + j]),
  ]);
  for (let column = 0; column < n; column++) {
    const pivot = rows.reduce(
      (best, row, i) => (i >= column && Math.abs(row[column]) > Math.abs(rows[best][column]) ? i : best),
      column,
    );
    [rows[column], rows[pivot]] = [rows[pivot], rows[column]];
    const lead = rows[column].map((x) => x / rows[column][column]);
    rows.forEach((row, i) => {
      rows[i] = i === column ? lead : row.map((x, j) => x - row[column] * lead[j]);
    });
  }
  return Float64Array.from(rows.flatMap((row) => row.slice(n)));
}

/**
 * The map S [V, D] with the least lambda ||S||^2 + sum_i w_i ||S k_i - v_i||^2, lambda = r ||sum_i w_i k_i k_i^T||, from all keys [T, D] and values
 * [T, V] at once: S^T = (K^T W K + lambda I)^-1 K^T W V.
 */
export function ridgeMap(
  keys: ArrayLike<number>,
  valuesOf: ArrayLike<number>,
  weights: ArrayLike<number>,
  D: number,
  ridgeRatio: number,
): { S: Float64Array; lambda: number } {
  const [T, V] = [weights.length, valuesOf.length / weights.length];
  const sum = (f: (t: number) => number) =>
    Array.from({ length: T }, (_, t) => weights[t] * f(t)).reduce((a, b) => a + b);
  const covariance = Float64Array.from({ length: D * D }, (_, c) =>
    sum((t) => keys[t * D + Math.floor(c / D)] * keys[t * D + (c % D)]),
  );
  const lambda = ridgeRatio * frobenius(covariance);
  const ridge = covariance.map((x, c) => x + (c % (D + 1) === 0 ? lambda : 0));
  const mixed = Float64Array.from({ length: D * V }, (_, c) =>
    sum((t) => keys[t * D + Math.floor(c / V)] * valuesOf[t * V + (c % V)]),
  );
  const transposed = eliminate(ridge, mixed); // [D, V]
  return { S: Float64Array.from({ length: V * D }, (_, c) => transposed[(c % D) * V + Math.floor(c / D)]), lambda };
}
