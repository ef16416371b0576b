/**
 * Gated KalmaNet in float64, straight from the recurrence (https://arxiv.org/abs/2511.21016, sec. 4.1):
 *
 *   H_t = a_t H_{t-1} + k_t k_t^T      U_t = a_t U_{t-1} + k_t v_t^T      a_t = exp(g_t)      f_t = ||H_t||_F      lambda_t = r f_t
 *   (H_t + lambda_t I) x_t = q_t       p_t = q_t + alpha_t (x_t - q_t)    o_t = scale * U_t^T p_t
 *
 * (f_t = 1 where H_t = 0) and its gradients, those of the solve by implicit differentiation with the same solver:
 *
 *   D_t = scale * p_t dO_t^T + a_{t+1} D_{t+1}                            D_T = scale * p_T dO_T^T + dKv
 *   dp_t = scale * U_t dO_t      dalpha_t = (x_t - q_t) . dp_t            (H_t + lambda_t I) c_t = alpha_t dp_t
 *   N_t = -(c_t x_t^T + x_t c_t^T) / 2 - r (x_t . c_t) / f_t * H_t + a_{t+1} N_{t+1}       N_T likewise + the symmetric part of dKk
 *   dq_t = (1 - alpha_t) dp_t + c_t        dk_t = D_t v_t + 2 N_t k_t     dv_t = D_t^T k_t
 *   dg_t = a_t (<D_t, U_{t-1}> + <N_t, H_{t-1}>)
 */
import { sequencesOf } from './sequences.js';

/** Sizes: batch, tokens, heads, width of queries and keys, value width. */
export interface GatedKalmaNetDims {
  B: number;
  T: number;
  H: number;
  K: number;
  V: number;
}

/** Flat row-major arrays: q, k [B,T,H,K]; v [B,T,H,V]; g, alpha [B,T,H]; kk [N,H,K,K], of which the symmetric part is taken; kv [N,H,K,V]. */
export interface GatedKalmaNetOracleInputs {
  q: ArrayLike<number>;
  k: ArrayLike<number>;
  v: ArrayLike<number>;
  g: ArrayLike<number>;
  alpha: ArrayLike<number>;
  kk?: ArrayLike<number>;
  kv?: ArrayLike<number>;
}

export interface GatedKalmaNetOracleOptions {
  scale?: number;
  numIterations?: number;
  ridgeRatio?: number;
  solver?: 'chebyshev' | 'exact';
  lambdaGradient?: boolean;
  decayKk?: boolean;
  cuSeqlens?: ArrayLike<number>;
}

/** Gradients on the outputs; an absent one is zero. dO [B,T,H,V], dKk [N,H,K,K], dKv [N,H,K,V]; `dX` [B,T,H,K] is one more on x itself. */
export interface GatedKalmaNetUpstream {
  dO?: ArrayLike<number>;
  dX?: ArrayLike<number>;
  dKk?: ArrayLike<number>;
  dKv?: ArrayLike<number>;
}

/** o [B,T,H,V], solutions x [B,T,H,K], norms f [B,T,H], final states, and the gradient on every input, in that input's layout. */
export type GatedKalmaNetOracleResult = Record<
  ('o' | 'x' | 'f' | 'finalKk' | 'finalKv') | ('dq' | 'dk' | 'dv' | 'dg' | 'dalpha' | 'dInitialKk' | 'dInitialKv'),
  Float64Array
>;

export function gatedKalmaNetOracle(
  inputs: GatedKalmaNetOracleInputs,
  { B, T, H, K, V }: GatedKalmaNetDims,
  options: GatedKalmaNetOracleOptions = {},
  upstream: GatedKalmaNetUpstream = {},
): GatedKalmaNetOracleResult {
  const sequences = sequencesOf(B, T, options.cuSeqlens);
  const [heads, states] = [B * T * H, sequences.length * H * K];
  const sizes = {
    ...{ o: heads * V, x: heads * K, f: heads, finalKk: states * K, finalKv: states * V },
    ...{ dq: heads * K, dk: heads * K, dv: heads * V, dg: heads, dalpha: heads },
    ...{ dInitialKk: states * K, dInitialKv: states * V },
  };
  const entries = Object.entries(sizes).map(([name, size]) => [name, new Float64Array(size)]);
  const out = Object.fromEntries(entries) as GatedKalmaNetOracleResult;
  const defaults = { scale: K ** -0.5, numIterations: 30, ridgeRatio: 0.02, lambdaGradient: true, decayKk: true };
  const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
  sequences.forEach(([start, length], n) => {
    for (let head = 0; head < H; head++) {
      const at = { H, K, V, start, length, head, state: (n * H + head) * K };
      runHead(at, { ...defaults, ...given }, inputs, upstream, out);
    }
  });
  return out;
}

interface Head {
  H: number;
  K: number;
  V: number;
  start: number;
  length: number;
  head: number;
  /** First row of this head's states. */
  state: number;
}

type Options = GatedKalmaNetOracleOptions &
  Required<Pick<GatedKalmaNetOracleOptions, 'scale' | 'numIterations' | 'ridgeRatio' | 'lambdaGradient' | 'decayKk'>>;

function runHead(
  { H, K, V, start, length, head, state }: Head,
  { scale, numIterations, ridgeRatio, solver, lambdaGradient, decayKk }: Options,
  { q, k, v, g, alpha, kk, kv }: GatedKalmaNetOracleInputs,
  { dO, dX, dKk, dKv }: GatedKalmaNetUpstream,
  out: GatedKalmaNetOracleResult,
): void {
  const row = (t: number) => (start + t) * H + head;
  const slice = (x: ArrayLike<number> | undefined, from: number, n: number) =>
    Float64Array.from({ length: n }, (_, i) => x?.[from + i] ?? 0);
  const key = (x: ArrayLike<number> | undefined, t: number) => slice(x, row(t) * K, K);
  const value = (x: ArrayLike<number> | undefined, t: number) => slice(x, row(t) * V, V);
  const decay = (t: number) => Math.exp(g[row(t)]);
  const decayOfKk = (t: number) => (decayKk ? decay(t) : 1);
  const solve = (matrix: Float64Array, f: number, b: Float64Array) => {
    if (solver === 'exact') return solveExactly(withRidge(matrix, ridgeRatio * f), b);
    return numIterations === 0 ? b : chebyshevSolve(matrix, f, b, ridgeRatio, numIterations);
  };

  // Forward. Hs[t], Us[t] are the states before token t.
  const Hs = [symmetric(slice(kk, state * K, K * K))];
  const Us = [slice(kv, state * V, K * V)];
  const xs: Float64Array[] = [];
  const ps: Float64Array[] = [];
  const norm = (t: number) => frobenius(Hs[t + 1]) || 1;
  for (let t = 0; t < length; t++) {
    Hs.push(Hs[t].map((x) => decayOfKk(t) * x));
    addOuter(Hs[t + 1], 1, key(k, t), key(k, t));
    Us.push(Us[t].map((x) => decay(t) * x));
    addOuter(Us[t + 1], 1, key(k, t), value(v, t));
    const query = key(q, t);
    xs.push(solve(Hs[t + 1], norm(t), query));
    ps.push(query.map((x, i) => x + alpha[row(t)] * (xs[t][i] - x)));
    out.f[row(t)] = frobenius(Hs[t + 1]);
    out.x.set(xs[t], row(t) * K);
    out.o.set(
      timesTransposed(Us[t + 1], ps[t], V).map((x) => scale * x),
      row(t) * V,
    );
  }
  out.finalKk.set(Hs[length], state * K);
  out.finalKv.set(Us[length], state * V);

  // Backward. N and D are the gradients on H and U after token t.
  const N = symmetric(slice(dKk, state * K, K * K));
  const D = slice(dKv, state * V, K * V);
  const solves = solver === 'exact' || numIterations > 0;
  for (let t = length - 1; t >= 0; t--) {
    const [query, x, d] = [key(q, t), xs[t], value(dO, t)];
    const dp = times(Us[t + 1], d).map((y) => scale * y);
    out.dalpha[row(t)] = dp.reduce((sum, y, i) => sum + y * (x[i] - query[i]), 0);
    const outside = key(dX, t);
    const dx = dp.map((y, i) => alpha[row(t)] * y + outside[i]);
    const c = solve(Hs[t + 1], norm(t), dx);
    out.dq.set(
      c.map((y, i) => y + (1 - alpha[row(t)]) * dp[i]),
      row(t) * K,
    );
    addOuter(D, scale, ps[t], d);
    if (solves) {
      addOuter(N, -0.5, c, x);
      addOuter(N, -0.5, x, c);
      const w = lambdaGradient ? (ridgeRatio * dot(x, c)) / norm(t) : 0;
      Hs[t + 1].forEach((y, i) => {
        N[i] -= w * y;
      });
    }
    const [ofU, ofH] = [times(D, value(v, t)), times(N, key(k, t))];
    out.dk.set(
      ofU.map((y, i) => y + 2 * ofH[i]),
      row(t) * K,
    );
    out.dv.set(timesTransposed(D, key(k, t), V), row(t) * V);
    out.dg[row(t)] = decay(t) * dot(D, Us[t]) + (decayKk ? decay(t) * dot(N, Hs[t]) : 0);
    for (let i = 0; i < N.length; i++) N[i] *= decayOfKk(t);
    for (let i = 0; i < D.length; i++) D[i] *= decay(t);
  }
  out.dInitialKk.set(N, state * K);
  out.dInitialKv.set(D, state * V);
}

/**
 * `numIterations` steps of the Chebyshev iteration for (H + r f I) x = b, H symmetric with a spectrum in [0, f]; `round` is applied to every
 * number that is stored (Math.fround: float32).
 */
export function chebyshevSolve(
  H: ArrayLike<number>,
  f: number,
  b: ArrayLike<number>,
  ridgeRatio: number,
  numIterations: number,
  round: (x: number) => number = (x) => x,
): Float64Array {
  const step = round(2 / (2 * ridgeRatio * f + f));
  const c = (1 / (1 + 2 * ridgeRatio)) ** 2 / 4;
  let previous = new Float64Array(b.length);
  let x = Float64Array.from(b, (y) => round(step * y));
  let omega = 2;
  for (let n = 0; n < numIterations; n++) {
    omega = 1 / (1 - c * omega);
    const r = residual(H, ridgeRatio * f, x, b, round); // b - (H + lambda) x
    const next = x.map((y, i) => round(omega * round(y + step * r[i]) + (1 - omega) * previous[i]));
    [previous, x] = [x, next];
  }
  return x;
}

/** b - (H + lambda I) x. */
export function residual(
  H: ArrayLike<number>,
  lambda: number,
  x: ArrayLike<number>,
  b: ArrayLike<number>,
  round: (x: number) => number = (x) => x,
): Float64Array {
  const n = b.length;
  return Float64Array.from(b, (y, i) => {
    let sum = 0;
    for (let j = 0; j < n; j++) sum = round(sum + round(H[i * n + j] * x[j]));
    return round(y - round(sum + round(lambda * x[i])));
  });
}

/** What the relative residual of `chebyshevSolve` cannot exceed: 1 / T_{R+1}(1 / rho), T the Chebyshev polynomials, rho = 1 / (1 + 2 r). */
export function chebyshevBound(ridgeRatio: number, numIterations: number): number {
  return 1 / Math.cosh((numIterations + 1) * Math.acosh(1 + 2 * ridgeRatio));
}

/** x of A x = b for symmetric positive definite A [n, n], by its Cholesky factor L: L y = b, L^T x = y. */
export function solveExactly(A: ArrayLike<number>, b: ArrayLike<number>): Float64Array {
  const n = b.length;
  const L = new Float64Array(n * n);
  for (let i = 0; i < n; i++)
    for (let j = 0; j <= i; j++) {
      let sum = A[i * n + j];
      for (let m = 0; m < j; m++) sum -= L[i * n + m] * L[j * n + m];
      L[i * n + j] = i === j ? Math.sqrt(sum) : sum / L[j * n + j];
    }
  const x = Float64Array.from(b);
  for (let i = 0; i < n; i++) {
    for (let m = 0; m < i; m++) x[i] -= L[i * n + m] * x[m];
    x[i] /= L[i * n + i];
  }
  for (let i = n - 1; i >= 0; i--) {
    for (let m = i + 1; m < n; m++) x[i] -= L[m * n + i] * x[m];
    x[i] /= L[i * n + i];
  }
  return x;
}

/** H + lambda I. */
export function withRidge(H: ArrayLike<number>, lambda: number): Float64Array {
  const n = Math.sqrt(H.length);
  return Float64Array.from(H, (x, i) => x + (i % (n + 1) === 0 ? lambda : 0));
}

export function frobenius(H: ArrayLike<number>): number {
  return Math.sqrt(dot(H, H));
}

function symmetric(A: Float64Array): Float64Array {
  const n = Math.sqrt(A.length);
  return A.map((x, i) => (x + A[(i % n) * n + Math.floor(i / n)]) / 2);
}

/** A += factor * x y^T. */
function addOuter(A: Float64Array, factor: number, x: Float64Array, y: Float64Array): void {
  for (let i = 0; i < x.length; i++) for (let j = 0; j < y.length; j++) A[i * y.length + j] += factor * x[i] * y[j];
}

/** A x. */
function times(A: Float64Array, x: Float64Array): Float64Array {
  const n = x.length;
  return Float64Array.from({ length: A.length / n }, (_, i) => dot(A.subarray(i * n, (i + 1) * n), x));
}

/** A^T x, for A with n columns. */
function timesTransposed(A: Float64Array, x: Float64Array, n: number): Float64Array {
  return Float64Array.from({ length: n }, (_, j) => x.reduce((sum, y, i) => sum + y * A[i * n + j], 0));
}

function dot(x: ArrayLike<number>, y: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < x.length; i++) sum += x[i] * y[i];
  return sum;
}
