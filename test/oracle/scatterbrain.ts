/**
 * Scatterbrain attention in float64 (https://arxiv.org/abs/2110.15343), pair by pair from its definition; nothing of `src` is used.
 *
 *   log phi(x) = [ +sqrt(s) W x, -sqrt(s) W x ] - s |x|^2 / 2 - log(m) / 2,  m = 2 r
 *   A_ij = exp(s q_i . k_j) on the support, phi(q_i) . phi(k_j) off it        o_i = sum_j A_ij v_j / sum_j A_ij
 *
 * Gradients from the chain rule, with W and the support as constants: dS_ij = P_ij (dO_i . v_j - dO_i . o_i), P the normalised A, is the
 * gradient on log A_ij; off the support phi_if phi_jf / (phi_i . phi_j) of it goes to log phi_if and to log phi_jf.
 */
import { sequencesOf } from './sequences.js';

export type Mode = 'sum' | 'sparse-only' | 'low-rank-only';

/** Batch, queries, keys, heads, key width, value width, rows of the projection. */
export interface ScatterbrainDims {
  B: number;
  T: number;
  S: number;
  H: number;
  E: number;
  V: number;
  r: number;
}

/** Flat row-major arrays: q [B,T,H,E], k [B,S,H,E], v [B,S,H,V], projection [r,E]. */
export interface ScatterbrainOracleInputs {
  q: ArrayLike<number>;
  k: ArrayLike<number>;
  v: ArrayLike<number>;
  projection: ArrayLike<number>;
}

/** Whether query i and key j, counted from the start of sequence n, are on the support in head h. */
export type Support = (n: number, h: number, i: number, j: number) => boolean;

export interface ScatterbrainOracleOptions {
  support: Support;
  /** Default true. */
  causal?: boolean;
  /** Default E^-0.5. */
  softmaxTemp?: number;
  mode?: Mode;
  cuSeqlens?: ArrayLike<number>;
  /** Of the final state, which sums over the keys that no later query has in its window; default 0. */
  windowSize?: number;
}

export interface ScatterbrainOracleResult {
  /** [B,T,H,V] */
  o: Float64Array;
  /** Normalised weights of every sequence and head, [T,S] each. */
  attention: Float64Array[];
  /** sum_j phi(k_j) v_j^T e^-exponent over the keys behind every window, [N,H,m,V]; sum_j phi(k_j) e^-exponent, [N,H,m]. */
  lowRank: Float64Array;
  normalizer: Float64Array;
  /** The least integer at or above all log phi(k_j) behind every window; [N,H] */
  exponent: Float64Array;
  dq: Float64Array;
  dk: Float64Array;
  dv: Float64Array;
  /** The size of what is summed in each gradient. */
  'terms.dq': Float64Array;
  'terms.dk': Float64Array;
  'terms.dv': Float64Array;
}

/** Upstream: dO [B,T,H,V], and of the final state dLowRank [N,H,m,V] and dNormalizer [N,H,m]; an absent one is zero. */
export interface ScatterbrainUpstream {
  dO?: ArrayLike<number>;
  dLowRank?: ArrayLike<number>;
  dNormalizer?: ArrayLike<number>;
}

/** A sum for every element, and the sum of the sizes of its terms. */
class Sum {
  readonly value: Float64Array;
  readonly #size: Float64Array;

  constructor(n: number) {
    this.value = new Float64Array(n);
    this.#size = new Float64Array(n);
  }

  add(at: number, term: number): void {
    this.value[at] += term;
    this.#size[at] += Math.abs(term);
  }

  get terms(): Float64Array {
    return Float64Array.of(this.#size.reduce((a, x) => Math.max(a, x), 0));
  }
}

export function scatterbrainOracle(
  { q, k, v, projection }: ScatterbrainOracleInputs,
  dims: ScatterbrainDims,
  options: ScatterbrainOracleOptions,
  { dO, dLowRank, dNormalizer }: ScatterbrainUpstream = {},
): ScatterbrainOracleResult {
  const { B, T, S, H, E, V, r } = dims;
  const { support, causal = true, softmaxTemp = E ** -0.5, mode = 'sum', cuSeqlens, windowSize = 0 } = options;
  const m = 2 * r;
  const [queries, keys] = [sequencesOf(B, T, cuSeqlens), sequencesOf(B, S, cuSeqlens)];
  const [dq, dk, dv] = [q, k, v].map((x) => new Sum(x.length));
  const o = new Float64Array(B * T * H * V);
  const lowRank = new Float64Array(queries.length * H * m * V);
  const normalizer = new Float64Array(queries.length * H * m);
  const exponent = new Float64Array(queries.length * H);
  const attention: Float64Array[] = [];

  queries.forEach(([startQ, n], sequence) => {
    const [startK, count] = keys[sequence];
    for (let h = 0; h < H; h++) {
      const rowQ = (i: number) => (startQ + i) * H + h;
      const rowK = (j: number) => (startK + j) * H + h;
      const features = (x: ArrayLike<number>, row: number) =>
        logFeatures(x, row * E, projection, { E, r, softmaxTemp });
      const phiQ = Array.from({ length: n }, (_, i) => features(q, rowQ(i)));
      const phiK = Array.from({ length: count }, (_, j) => features(k, rowK(j)));
      /** Adds to the gradient on x what comes through its features. */
      const throughFeatures = (sum: Sum, x: ArrayLike<number>, row: number, f: number, g: number) => {
        const w = f % r;
        for (let e = 0; e < E; e++) {
          const sign = f < r ? 1 : -1;
          sum.add(row * E + e, g * sign * Math.sqrt(softmaxTemp) * projection[w * E + e]);
          sum.add(row * E + e, -g * softmaxTemp * x[row * E + e]);
        }
      };
      const weights = new Float64Array(n * count);

      for (let i = 0; i < n; i++) {
        const seen = Array.from({ length: count }, (_, j) => j).filter((j) => !causal || j <= i);
        const pairs = seen.flatMap((j) => {
          const exact = mode !== 'low-rank-only' && support(sequence, h, i, j);
          if (!exact && mode === 'sparse-only') return [];
          const log = exact
            ? softmaxTemp * dot(q, rowQ(i) * E, k, rowK(j) * E, E)
            : logSumExp(phiQ[i].map((x, f) => x + phiK[j][f]));
          return [{ j, exact, log }];
        });
        if (pairs.length === 0) continue;
        const total = logSumExp(pairs.map(({ log }) => log));
        for (const { j, log } of pairs) {
          weights[i * count + j] = Math.exp(log - total);
          for (let e = 0; e < V; e++) o[rowQ(i) * V + e] += Math.exp(log - total) * v[rowK(j) * V + e];
        }
        if (!dO) continue;
        const mean = dot(dO, rowQ(i) * V, o, rowQ(i) * V, V);
        for (const { j, exact, log } of pairs) {
          const P = Math.exp(log - total);
          const dS = P * (dot(dO, rowQ(i) * V, v, rowK(j) * V, V) - mean);
          for (let e = 0; e < V; e++) dv.add(rowK(j) * V + e, P * dO[rowQ(i) * V + e]);
          if (exact)
            for (let e = 0; e < E; e++) {
              dq.add(rowQ(i) * E + e, softmaxTemp * dS * k[rowK(j) * E + e]);
              dk.add(rowK(j) * E + e, softmaxTemp * dS * q[rowQ(i) * E + e]);
            }
          else
            for (let f = 0; f < m; f++) {
              const g = dS * Math.exp(phiQ[i][f] + phiK[j][f] - log);
              throughFeatures(dq, q, rowQ(i), f, g);
              throughFeatures(dk, k, rowK(j), f, g);
            }
        }
      }
      attention.push(weights);

      const behind = phiK.slice(0, Math.max(0, windowSize > 0 ? n - windowSize + 1 : n));
      const at = sequence * H + h;
      exponent[at] = Math.ceil(behind.flat().reduce((a, x) => Math.max(a, x), Number.NEGATIVE_INFINITY));
      behind.forEach((log, j) => {
        for (let f = 0; f < m; f++) {
          const phi = Math.exp(log[f] - exponent[at]);
          const cell = at * m + f;
          normalizer[cell] += phi;
          let g = phi * (dNormalizer?.[cell] ?? 0);
          for (let e = 0; e < V; e++) {
            lowRank[cell * V + e] += phi * v[rowK(j) * V + e];
            g += phi * v[rowK(j) * V + e] * (dLowRank?.[cell * V + e] ?? 0);
            if (dLowRank) dv.add(rowK(j) * V + e, phi * dLowRank[cell * V + e]);
          }
          if (dLowRank || dNormalizer) throughFeatures(dk, k, rowK(j), f, g);
        }
      });
    }
  });
  return {
    ...{ o, attention, lowRank, normalizer, exponent, dq: dq.value, dk: dk.value, dv: dv.value },
    ...{ 'terms.dq': dq.terms, 'terms.dk': dk.terms, 'terms.dv': dv.terms },
  };
}

/** log phi of the vector at x[at ...], [2 r]: first the r with +, then the r with -. */
export function logFeatures(
  x: ArrayLike<number>,
  at: number,
  projection: ArrayLike<number>,
  { E, r, softmaxTemp }: { E: number; r: number; softmaxTemp: number },
): number[] {
  const shift = -(softmaxTemp / 2) * dot(x, at, x, at, E) - Math.log(2 * r) / 2;
  const products = Array.from({ length: r }, (_, w) => Math.sqrt(softmaxTemp) * dot(projection, w * E, x, at, E));
  return [...products.map((p) => p + shift), ...products.map((p) => -p + shift)];
}

// ---- Supports -------------------------------------------------------------------------------------------------------------------

/** Bucket of every token in one round: argmax over [x R, -x R], the first where several are largest. rotations [E, rounds, half]. */
export function rotationBucket(
  x: ArrayLike<number>,
  at: number,
  rotations: ArrayLike<number>,
  { E, rounds, half, round }: { E: number; rounds: number; half: number; round: number },
): number {
  const projected = Array.from({ length: half }, (_, b) => {
    let sum = 0;
    for (let e = 0; e < E; e++) sum += x[at + e] * rotations[(e * rounds + round) * half + b];
    return sum;
  });
  const all = [...projected, ...projected.map((p) => -p)];
  return all.indexOf(Math.max(...all));
}

/**
 * Buckets of the rows of q and k [count, E] in one round of the sorted hash: both are lifted to vectors of one length whose products are
 * those of q and k, projected on alpha [E + 2] and cut, in the order of the projections, into pieces of bucketSize.
 */
export function sortedBuckets(
  q: readonly number[][],
  k: readonly number[][],
  alpha: readonly number[],
  [querySize, keySize]: readonly [number, number],
): [q: number[], k: number[]] {
  const square = (x: number[]) => x.reduce((a, e) => a + e * e, 0);
  const most = (rows: readonly number[][]) => Math.max(...rows.map(square));
  const M = most(q) + most(k);
  const lifted = (x: number[], isKey: boolean) => {
    const rest = Math.sqrt(Math.max(0, M - square(x)));
    return [...x, ...(isKey ? [rest, 0] : [0, rest])];
  };
  const cut = (rows: readonly number[][], isKey: boolean, size: number) => {
    const scores = rows.map((x) => lifted(x, isKey).reduce((a, e, n) => a + e * alpha[n], 0));
    return scores.map((own, i) => {
      const rank = scores.filter((other, j) => other < own || (other === own && j < i)).length;
      return Math.floor(rank / size);
    });
  };
  return [cut(q, false, querySize), cut(k, true, keySize)];
}

/** Pairs at most so far apart: causal, a token and the size - 1 before it; else -floor(size / 2) <= j - i < floor((size + 1) / 2). */
export function inWindow(i: number, j: number, size: number, causal: boolean): boolean {
  if (causal) return j <= i && j > i - size;
  return j - i >= -Math.floor(size / 2) && j - i < Math.floor((size + 1) / 2);
}

/**
 * Pairs of one bucket, where only `size` keys of it count: causal, the last at or before the query; else from floor(size / 2) before the last
 * at or before the query on. With different lengths a query stands at floor(i S / T). Size undefined: all keys of the bucket.
 */
export function inBucket(
  i: number,
  j: number,
  queryBuckets: ArrayLike<number>,
  keyBuckets: ArrayLike<number>,
  { size, causal }: { size?: number; causal: boolean },
): boolean {
  if (queryBuckets[i] !== keyBuckets[j]) return false;
  if (size === undefined) return !causal || j <= i;
  const place = Math.floor((i * keyBuckets.length) / queryBuckets.length);
  const own = Array.from(keyBuckets).flatMap((bucket, at) => (bucket === queryBuckets[i] ? [at] : []));
  const before = own.filter((at) => at <= place).length;
  const [from, to] = causal
    ? [before - size, before]
    : [before - 1 - Math.floor(size / 2), before - 1 + Math.ceil(size / 2)];
  return own.slice(Math.max(0, from), Math.max(0, to)).includes(j);
}

function logSumExp(xs: readonly number[]): number {
  const most = Math.max(...xs);
  return most + Math.log(xs.reduce((a, x) => a + Math.exp(x - most), 0));
}

function dot(a: ArrayLike<number>, atA: number, b: ArrayLike<number>, atB: number, n: number): number {
  let sum = 0;
  for (let i = 0; i < n; i++) sum += a[atA + i] * b[atB + i];
  return sum;
}
