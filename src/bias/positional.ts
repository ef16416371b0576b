/** Biases that depend on the distance j - i of key and query alone, and have an exact factorisation of low rank. */
import * as tf from '@tensorflow/tfjs';
import { checkOneOf, checkPositiveInt } from '../chunked/check.js';
import { type BiasFactors, columns, type Learnable, type Lengths, perHead, positionsOf } from './factors.js';

/**
 * Slopes of ALiBi (https://arxiv.org/abs/2108.12409), one for each head, steepest first.
 * @param spacing `formula` (default): 2^(-8 (h + 1) / H) for any H; `published`: the same where H is a power of two, else those of the next
 *   lower power followed by every other one of the next higher, as in the authors' code
 */
export function alibiSlopes(numHeads: number, spacing: 'formula' | 'published' = 'formula'): number[] {
  checkPositiveInt('alibiSlopes', 'numHeads', numHeads);
  checkOneOf('alibiSlopes', 'spacing', spacing, ['formula', 'published']);
  const power = 2 ** Math.floor(Math.log2(numHeads));
  const formula = (H: number) => Array.from({ length: H }, (_, h) => 2 ** ((-8 * (h + 1)) / H));
  if (spacing === 'formula' || power === numHeads) return formula(numHeads);
  const between = formula(2 * power).filter((_, h) => h % 2 === 0);
  return [...formula(power), ...between.slice(0, numHeads - power)];
}

export interface AlibiOptions extends Lengths {
  /** Positive slopes m [H]; differentiable. */
  slopes: Learnable;
  /**
   * Default false. True: m j alone, rank 1, which gives the same o; lse is larger by m times the query's position. Its scores are as large as m
   * times the length, so float32 rounds them more.
   */
  short?: boolean;
}

/**
 * ALiBi: b_ij = m_h (j - i), at most 0 where the key is in the past. Rank 2: m [-i, 1] . [1, j].
 * (Example 3.4 of FlashBias has the opposite sign, which would reward distance.)
 */
export function alibi({ slopes, short = false, ...lengths }: AlibiOptions): BiasFactors {
  const { q, k } = positionsOf('alibi', lengths);
  return tf.tidy(() => {
    const m = perHead('alibi', 'slopes', slopes).reshape([1, 1, -1, 1]);
    const rows = short ? tf.ones([1, q.length, 1, 1]) : byPosition(q, [(i) => -i, () => 1]);
    const phiK = byPosition(k, short ? [(j) => j] : [() => 1, (j) => j]);
    return { phiQ: tf.mul(m, rows), phiK };
  });
}

export interface CosineOptions extends Lengths {
  /** Angle per token in radians [H]. */
  frequencies: number[];
  /** Factors on the cosine [H], default 1; differentiable. */
  amplitudes?: Learnable;
}

/** b_ij = a_h cos(omega_h (i - j)), rank 2. */
export function cosine({ frequencies, amplitudes, ...lengths }: CosineOptions): BiasFactors {
  const { q, k } = positionsOf('cosine', lengths);
  const table = (positions: Float32Array) => {
    const values = Array.from(positions, (t) => frequencies.map((w) => [Math.cos(w * t), Math.sin(w * t)]));
    return tf.tensor4d([values], [1, positions.length, frequencies.length, 2]);
  };
  return tf.tidy(() => {
    if (!amplitudes) return { phiQ: table(q), phiK: table(k) };
    const a = perHead('cosine', 'amplitudes', amplitudes).reshape([1, 1, -1, 1]);
    return { phiQ: tf.mul(a, table(q)), phiK: table(k) };
  });
}

export interface PolynomialOptions extends Lengths {
  /** c [H][p + 1] of b_ij = sum_n c_hn (j - i)^n. */
  coefficients: number[][];
}

/**
 * A polynomial of degree p in j - i, rank p + 1, by the binomial expansion. Powers of positions cancel in it: the error is about 1e-7 of
 * sum_n |c_n| S^n, so degrees above 1 want short sequences or small coefficients.
 */
export function polynomial({ coefficients, ...lengths }: PolynomialOptions): BiasFactors {
  const { q, k } = positionsOf('polynomial', lengths);
  const R = coefficients[0]?.length ?? 0;
  if (R === 0 || coefficients.some((c) => c.length !== R))
    throw new RangeError('polynomial: coefficients must be [H][p + 1], as many for each head');
  const middle = (k[0] + k[k.length - 1]) / 2;
  const unit = Math.max(1, k.length / 2); // positions of keys lie within [-1, 1], where powers are of one size
  const rows = Array.from(q, (i) => coefficients.map((c) => expanded(c, i - middle, unit)));
  const cols = Array.from(k, (j) => [Array.from({ length: R }, (_, n) => ((j - middle) / unit) ** n)]);
  return tf.tidy(() => ({
    phiQ: tf.tensor4d([rows], [1, q.length, coefficients.length, R]),
    phiK: tf.tensor4d([cols], [1, k.length, 1, R]),
  }));
}

/** Coefficients of sum_n c_n (unit x - i)^n in powers of x. */
function expanded(c: number[], i: number, unit: number): number[] {
  return c.map((_, r) => {
    let sum = 0;
    for (let n = r; n < c.length; n++) sum += c[n] * binomial(n, r) * (-i) ** (n - r);
    return sum * unit ** r;
  });
}

function binomial(n: number, k: number): number {
  return k === 0 ? 1 : (binomial(n - 1, k - 1) * n) / k;
}

/** [1, T, 1, n]: functions of the position. */
function byPosition(positions: Float32Array, functions: ((t: number) => number)[]): tf.Tensor {
  const values = Float32Array.from({ length: positions.length * functions.length }, (_, i) =>
    functions[i % functions.length](positions[Math.floor(i / functions.length)]),
  );
  return tf.tensor4d(values, [1, positions.length, 1, functions.length]);
}

export interface SeparableOptions {
  /** r [B or 1, T, H or 1]; left out, it is 0: a constant of a row is no matter to o. */
  rows?: tf.Tensor;
  /** c [B or 1, S, H or 1]. */
  columns: tf.Tensor;
  /** T, where there are no rows. */
  queries?: number;
}

/** b_ij = r_i + c_j: rank 2, [r, 1] . [1, c]; rank 1 without r. Differentiable. */
export function separable({ rows, columns: c, queries }: SeparableOptions): BiasFactors {
  if (!rows && queries === undefined)
    throw new RangeError('separable: without rows it needs queries, how many there are');
  for (const [name, x] of Object.entries({ rows, columns: c }))
    if (x && x.rank !== 3)
      throw new RangeError(`separable: ${name} must have shape [B or 1,*,H or 1], got [${x.shape}]`);
  return tf.tidy(() => {
    if (!rows) return { phiQ: tf.ones([1, queries as number, 1, 1]), phiK: tf.expandDims(c, 3) };
    return { phiQ: columns(rows, tf.onesLike(rows)), phiK: columns(tf.onesLike(c), c) };
  });
}
