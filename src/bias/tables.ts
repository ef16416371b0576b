/** Learned tables of relative positions: T5 (https://arxiv.org/abs/1910.10683) and Swin V2 (https://arxiv.org/abs/2111.09883). */
import * as tf from '@tensorflow/tfjs';
import { checkPositiveInt } from '../chunked/check.js';
import type { Lengths } from './factors.js';

export interface T5Options {
  /** Default 32. */
  numBuckets?: number;
  /** Distance from which all share the last bucket, default 128. */
  maxDistance?: number;
  /** Default true: half of the buckets are for keys after the query. False: those are in bucket 0, with the query's own. */
  bidirectional?: boolean;
}

/** The bucket of a relative position j - i: one each for the nearest, then logarithmic steps up to `maxDistance`. */
export function t5Bucket(
  relative: number,
  { numBuckets = 32, maxDistance = 128, bidirectional = true }: T5Options = {},
): number {
  const buckets = bidirectional ? numBuckets / 2 : numBuckets;
  const first = bidirectional && relative > 0 ? buckets : 0;
  const distance = bidirectional ? Math.abs(relative) : Math.max(-relative, 0);
  const exact = Math.floor(buckets / 2);
  if (distance < exact) return first + distance;
  const steps = Math.floor((Math.log(distance / exact) / Math.log(maxDistance / exact)) * (buckets - exact));
  return first + Math.min(exact + steps, buckets - 1);
}

/** The dense bias of each head, [H][T][S], from a table [numBuckets][H]: to be factorised. */
export function t5Matrices(
  table: ArrayLike<ArrayLike<number>>,
  lengths: Lengths,
  options: T5Options = {},
): number[][][] {
  const { numBuckets = 32 } = options;
  checkT5('t5Matrices', options);
  if (table.length !== numBuckets)
    throw new RangeError(`t5Matrices: table must have ${numBuckets} rows, one for each bucket, got ${table.length}`);
  const { queries, keys = queries } = lengths;
  const past = keys - queries;
  return Array.from({ length: table[0].length }, (_, h) =>
    Array.from({ length: queries }, (_, i) =>
      Array.from({ length: keys }, (_, j) => table[t5Bucket(j - past - i, options)][h]),
    ),
  );
}

/**
 * The causal T5 bias as a band [1, 1, H, 2 maxDistance - 1] for `flashBias`, exact and of a memory that knows no length: all distances from
 * `maxDistance` on have one number, which is taken from every entry, as softmax does not see it (lse is smaller by it). Differentiable.
 * @param table [numBuckets, H]
 */
export function t5CausalBand(table: tf.Tensor, options: Omit<T5Options, 'bidirectional'> = {}): tf.Tensor {
  const { numBuckets = 32, maxDistance = 128 } = options;
  checkT5('t5CausalBand', { ...options, bidirectional: false });
  if (table.rank !== 2 || table.shape[0] !== numBuckets)
    throw new RangeError(`t5CausalBand: table must have shape [${numBuckets},H], got [${table.shape}]`);
  const width = 2 * maxDistance - 1;
  const choice = new Float32Array(width * numBuckets); // a product with it picks: its gradient is a product too
  for (let d = 0; d < maxDistance; d++) {
    choice[d * numBuckets + t5Bucket(d + 1 - maxDistance, { ...options, bidirectional: false })] += 1;
    choice[d * numBuckets + numBuckets - 1] -= 1;
  }
  return tf.tidy(() => {
    const entries = tf.matMul(tf.tensor2d(choice, [width, numBuckets]), table as tf.Tensor2D);
    return tf.transpose(entries).reshape([1, 1, table.shape[1] as number, width]);
  });
}

function checkT5(name: string, { numBuckets = 32, maxDistance = 128, bidirectional = true }: T5Options): void {
  checkPositiveInt(name, 'numBuckets', numBuckets);
  checkPositiveInt(name, 'maxDistance', maxDistance);
  const buckets = bidirectional ? numBuckets / 2 : numBuckets;
  if (!Number.isInteger(buckets) || buckets < 2)
    throw new RangeError(
      `${name}: numBuckets must be ${bidirectional ? 'even and at least 4' : 'at least 2'}, got ${numBuckets}`,
    );
  if (maxDistance <= Math.floor(buckets / 2))
    throw new RangeError(
      `${name}: maxDistance must be above ${Math.floor(buckets / 2)}, the distances with a bucket of their own, got ${maxDistance}`,
    );
}

/** The network of continuous positions of Swin V2: 2 -> hidden (bias, ReLU) -> heads. */
export interface SwinNetwork {
  /** [hidden][2] */
  weight: number[][];
  /** [hidden] */
  bias: number[];
  /** [H][hidden] */
  out: number[][];
}

/**
 * The bias of each head in a window of `height` x `width` tokens (row by row), [H][N][N], N = height * width: 16 sigmoid of the network at
 * log-spaced offsets, sign(x) log2(1 + 8 |x| / (size - 1)) / 3. Attention in Swin V2 has normalised q and k times a learned factor: multiply
 * q by it and give `scale: 1`.
 */
export function swinMatrices(
  { weight, bias, out }: SwinNetwork,
  [height, width]: [height: number, width: number],
): number[][][] {
  checkPositiveInt('swinMatrices', 'height', height);
  checkPositiveInt('swinMatrices', 'width', width);
  const spaced = (offset: number, size: number) => {
    const x = size > 1 ? (8 * offset) / (size - 1) : 0;
    return (Math.sign(x) * Math.log2(1 + Math.abs(x))) / 3;
  };
  const at = (dy: number, dx: number): number[] => {
    const point = [spaced(dy, height), spaced(dx, width)];
    const hidden = weight.map(([a, b], n) => Math.max(0, a * point[0] + b * point[1] + bias[n]));
    return out.map((row) => 16 / (1 + Math.exp(-row.reduce((sum, w, n) => sum + w * hidden[n], 0))));
  };
  const table = Array.from({ length: 2 * height - 1 }, (_, y) =>
    Array.from({ length: 2 * width - 1 }, (_, x) => at(y + 1 - height, x + 1 - width)),
  );
  const tokens = Array.from({ length: height * width }, (_, n) => [Math.floor(n / width), n % width]);
  return out.map((_, h) =>
    tokens.map(([y, x]) => tokens.map(([v, u]) => table[y - v + height - 1][x - u + width - 1][h])),
  );
}
