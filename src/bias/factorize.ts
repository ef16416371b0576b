/** Factors of any bias by singular values, in float64 (FlashBias, https://arxiv.org/abs/2505.12044, Sec. 3.2). */
import * as tf from '@tensorflow/tfjs';
import { Matrix, SVD } from 'ml-matrix';
import { checkPositiveInt } from '../chunked/check.js';
import { filledBand, takenBand } from './band.js';
import type { BiasFactors } from './factors.js';

/** Exactly one of `rank`, `tolerance` and `energy`. */
export interface FactorizeOptions {
  /** Numbers in each factor. */
  rank?: number;
  /** The smallest rank at which no entry is off by more than this. */
  tolerance?: number;
  /**
   * The smallest rank that keeps this share of sum b^2. A poor guide: a bias is mostly its mean, which softmax does not see, and a peak at the
   * diagonal is the last thing singular values tell. At 99 % the output of attention with a T5 table is off by 30 to 80 % (docs/attention.md).
   */
  energy?: number;
  /** w: entries less than w from the diagonal are kept as they are, in a band, and only what is outside is factorised. Default: none. */
  band?: number;
  /** Default false. True: the mean of every row, which moves lse alone, is taken out first. */
  centreRows?: boolean;
}

/** What one head lost: all entries are compared, those of the band as they are put together again. */
export interface FactorizationError {
  /** The rank this head needed. */
  rank: number;
  /** Largest |b - b_R|. */
  maxAbs: number;
  /** |b - b_R| / |b|, Frobenius norms. */
  relative: number;
  /** Share of sum b^2 that the singular values kept hold: of what was factorised. */
  energy: number;
  /** Of what was factorised, largest first. */
  singularValues: Float64Array;
}

/** [T][S] of each head. */
export type BiasMatrices = ArrayLike<ArrayLike<ArrayLike<number>>>;

/**
 * Factors [1, T, H, R] and [1, S, H, R] of a bias that does not change, to be made once: the time is that of a float64 SVD, cubic in the
 * length (about 1 s for 256, 10 s for 512). R is the largest rank that a head needs. The caller owns the tensors.
 * @param bias [H][T][S], or a tensor [H, T, S] or [1, H, T, S]
 * @throws RangeError when the options are not one of rank, tolerance and energy, or the bias is not finite
 */
export async function factorizeBias(
  bias: BiasMatrices | tf.Tensor,
  options: FactorizeOptions,
): Promise<BiasFactors & { band?: tf.Tensor; errors: FactorizationError[] }> {
  checkOptions(options);
  const heads = await matricesOf(bias);
  const parts = heads.map((head) => factorizeHead(head, options));
  const R = Math.max(...parts.map(({ error }) => error.rank));
  const width = options.band === undefined ? 0 : 2 * options.band - 1;
  return {
    phiQ: stacked(
      parts.map(({ left }) => left),
      R,
    ),
    phiK: stacked(
      parts.map(({ right }) => right),
      R,
    ),
    ...(width && {
      band: stacked(
        parts.map(({ band }) => band as number[][]),
        width,
      ),
    }),
    errors: parts.map(({ error }) => error),
  };
}

interface Head {
  /** [T][rank] and [S][rank]. */
  left: number[][];
  right: number[][];
  /** [T][2 w - 1]. */
  band?: number[][];
  error: FactorizationError;
}

function factorizeHead(head: number[][], options: FactorizeOptions): Head {
  const centred = options.centreRows ? head.map(withoutMean) : head;
  const smooth = options.band === undefined ? centred : filledBand(centred, options.band);
  const matrix = new Matrix(smooth);
  const svd = new SVD(matrix, { autoTranspose: true });
  const sigma = Float64Array.from(svd.diagonal);
  const rank = rankFor(matrix, svd, sigma, options);
  const side = (vectors: Matrix) =>
    Array.from({ length: vectors.rows }, (_, i) =>
      Array.from({ length: rank }, (_, r) => vectors.get(i, r) * Math.sqrt(sigma[r])),
    );
  const [left, right] = [side(svd.leftSingularVectors), side(svd.rightSingularVectors)];
  const difference = centred.map((row, i) => row.map((b, j) => b - dot(left[i], right[j])));
  const band = options.band === undefined ? undefined : takenBand(difference, options.band); // leaves 0 where it takes
  const squares = (rows: number[][]) => rows.reduce((sum, row) => sum + dot(row, row), 0);
  const kept = sigma.reduce((sum, s, r) => sum + (r < rank ? s * s : 0), 0);
  const all = dot(sigma, sigma);
  const error = {
    rank,
    maxAbs: largest(difference),
    relative: Math.sqrt(squares(difference) / squares(centred)) || 0,
    energy: all === 0 ? 1 : kept / all,
    singularValues: sigma,
  };
  return { left, right, band, error };
}

type Decomposition = { leftSingularVectors: Matrix; rightSingularVectors: Matrix };

function rankFor(
  matrix: Matrix,
  { leftSingularVectors: U, rightSingularVectors: V }: Decomposition,
  sigma: Float64Array,
  { rank, tolerance, energy, band }: FactorizeOptions,
): number {
  if (rank !== undefined) return Math.min(rank, sigma.length);
  if (energy !== undefined) return rankOfEnergy(sigma, energy);
  const rest = matrix.to2DArray();
  for (let r = 0; r < sigma.length; r++) {
    if (r > 0 && largest(withoutBand(rest, band)) <= (tolerance as number)) return r;
    for (const [i, row] of rest.entries()) {
      const x = sigma[r] * U.get(i, r);
      for (let j = 0; j < row.length; j++) row[j] -= x * V.get(j, r);
    }
  }
  return sigma.length;
}

/** With 0 where the band will make up for any error. */
function withoutBand(rows: number[][], band: number | undefined): number[][] {
  if (band === undefined) return rows;
  const outside = rows.map((row) => row.slice());
  takenBand(outside, band);
  return outside;
}

/** The smallest rank, at least 1, whose share of the energy is at least `energy`. */
function rankOfEnergy(sigma: Float64Array, energy: number): number {
  const all = dot(sigma, sigma);
  let kept = 0;
  for (let r = 0; r < sigma.length; r++) {
    kept += sigma[r] ** 2;
    if (kept >= energy * all) return r + 1;
  }
  return sigma.length;
}

function checkOptions(options: FactorizeOptions): void {
  const { rank, tolerance, energy, band } = options;
  const given = (['rank', 'tolerance', 'energy'] as const).filter((name) => options[name] !== undefined);
  if (given.length !== 1)
    throw new RangeError(`factorizeBias: give one of rank, tolerance and energy, got ${given.join(' and ') || 'none'}`);
  if (rank !== undefined) checkPositiveInt('factorizeBias', 'rank', rank);
  if (band !== undefined) checkPositiveInt('factorizeBias', 'band', band);
  if (tolerance !== undefined && !(tolerance >= 0))
    throw new RangeError(`factorizeBias: tolerance must be at least 0, got ${tolerance}`);
  if (energy !== undefined && !(energy > 0 && energy <= 1))
    throw new RangeError(`factorizeBias: energy must be above 0 and at most 1, got ${energy}`);
}

async function matricesOf(bias: BiasMatrices | tf.Tensor): Promise<number[][][]> {
  const heads =
    bias instanceof tf.Tensor
      ? await readHeads(bias)
      : Array.from(bias, (rows) => Array.from(rows, (row) => Array.from(row)));
  const [T, S] = [heads[0]?.length ?? 0, heads[0]?.[0]?.length ?? 0];
  if (T === 0 || S === 0 || heads.some((rows) => rows.length !== T || rows.some((row) => row.length !== S)))
    throw new RangeError('factorizeBias: bias must be [H][T][S], all heads and rows of one length and not empty');
  if (!heads.every((rows) => rows.every((row) => row.every(Number.isFinite))))
    throw new RangeError(
      'factorizeBias: bias must be finite; hide pairs by causal, window or keyMask, not by -Infinity',
    );
  return heads;
}

async function readHeads(bias: tf.Tensor): Promise<number[][][]> {
  const shape = bias.rank === 4 && bias.shape[0] === 1 ? bias.shape.slice(1) : bias.shape;
  if (shape.length !== 3)
    throw new RangeError(`factorizeBias: bias must have shape [H,T,S] or [1,H,T,S], got [${bias.shape}]`);
  const [H, T, S] = shape as [number, number, number];
  const all = await bias.data();
  return Array.from({ length: H }, (_, h) =>
    Array.from({ length: T }, (_, i) => Array.from(all.subarray((h * T + i) * S, (h * T + i + 1) * S))),
  );
}

/** [H][T][n] -> [1, T, H, width], with zeros after the n. */
function stacked(heads: number[][][], width: number): tf.Tensor {
  const [H, T] = [heads.length, heads[0].length];
  const values = new Float32Array(T * H * width);
  for (const [h, rows] of heads.entries()) for (const [t, row] of rows.entries()) values.set(row, (t * H + h) * width);
  return tf.tensor4d(values, [1, T, H, width]);
}

function withoutMean(row: number[]): number[] {
  const mean = row.reduce((a, b) => a + b) / row.length;
  return row.map((b) => b - mean);
}

const largest = (rows: number[][]) => rows.reduce((m, row) => row.reduce((n, x) => Math.max(n, Math.abs(x)), m), 0);

function dot(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}
