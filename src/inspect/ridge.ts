/** The ridge regression of one token in float64: its matrix, how well a solution fits, and what each step of the iteration leaves. */

/** (H + lambda I) x = q */
export interface Regression {
  /** [D, D], symmetric. */
  H: Float64Array;
  /** Frobenius norm of H; 1 where H = 0. */
  norm: number;
  lambda: number;
  q: Float64Array;
}

/** Queries and keys [T, D] and log decays [T] of one head. */
export interface HeadInputs {
  q: Float64Array;
  k: Float64Array;
  g: Float64Array;
}

/**
 * H_t = exp(g_t) H_{t-1} + k_t k_t^T from nothing, with the queries.
 * @param positions of the tokens t that are wanted, rising
 */
export function regressionsAt({ q, k, g }: HeadInputs, positions: readonly number[], ridgeRatio: number): Regression[] {
  const D = q.length / g.length;
  const H = new Float64Array(D * D);
  const wanted = new Set(positions);
  const found: Regression[] = [];
  for (let t = 0; t <= (positions.at(-1) ?? -1); t++) {
    const decay = Math.exp(g[t]);
    for (let i = 0; i < D; i++)
      for (let j = 0; j < D; j++) H[i * D + j] = decay * H[i * D + j] + k[t * D + i] * k[t * D + j];
    if (!wanted.has(t)) continue;
    const norm = length(H) || 1;
    found.push({ H: H.slice(), norm, lambda: ridgeRatio * norm, q: q.slice(t * D, (t + 1) * D) });
  }
  return found;
}

/** |q - (H + lambda I) x| / |q|; 0 for q = 0, which any method solves. */
export function relativeResidual({ H, lambda, q }: Regression, x: Float64Array): number {
  const rest = applied(H, x).map((y, i) => q[i] - y - lambda * x[i]);
  return length(rest) / (length(q) || 1);
}

/**
 * Relative residuals of the Chebyshev iteration after 0, 1, ..., `steps` steps; step 0 is the start, step * q. As the op computes it, but
 * in float64 (paper, Algorithm 1, with the classical first weight 2).
 */
export function chebyshevResiduals(regression: Regression, steps: number): number[] {
  const { H, norm, lambda, q } = regression;
  const step = 2 / (2 * lambda + norm);
  const rho = norm / (2 * lambda + norm);
  let [weight, previous, x] = [2, new Float64Array(q.length), q.map((y) => step * y)];
  const residuals = [relativeResidual(regression, x)];
  for (let n = 0; n < steps; n++) {
    weight = 1 / (1 - (rho * rho * weight) / 4);
    const Hx = applied(H, x);
    const moved = x.map((y, i) => y - step * (Hx[i] + lambda * y - q[i]));
    const next = moved.map((y, i) => weight * y + (1 - weight) * previous[i]);
    [previous, x] = [x, next];
    residuals.push(relativeResidual(regression, x));
  }
  return residuals;
}

/** No residual after `steps` steps is above this: 1 / T_{steps + 1}(1 / rho), T the Chebyshev polynomial, 1 / rho = 1 + 2 ridgeRatio. */
export const residualBound = (ridgeRatio: number, steps: number): number =>
  1 / Math.cosh((steps + 1) * Math.acosh(1 + 2 * ridgeRatio));

function applied(H: Float64Array, x: Float64Array): Float64Array {
  const D = x.length;
  return x.map((_, i) => {
    let sum = 0;
    for (let j = 0; j < D; j++) sum += H[i * D + j] * x[j];
    return sum;
  });
}

const length = (x: Float64Array) => Math.sqrt(x.reduce((sum, y) => sum + y * y, 0));
