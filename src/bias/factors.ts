/** Factors of additive attention biases: b_ij = phiQ_i . phiK_j, as `flashBias` takes them. */
import * as tf from '@tensorflow/tfjs';
import { checkPositiveInt } from '../chunked/check.js';
import { factorProduct, spreadBand } from '../chunked/flashAttention/factors.js';

/** Both float32; a type, so that it can be spread: `flashBias({ q, k, v, ...alibi({ slopes, queries: T }) })`. */
export type BiasFactors = {
  /** [B or 1, T, H or 1, R] */
  phiQ: tf.Tensor;
  /** [B or 1, S, H or 1, R] */
  phiK: tf.Tensor;
};

/** How many queries and keys there are; query i stands at position keys - queries + i, key j at position j. */
export interface Lengths {
  /** T. */
  queries: number;
  /** S, at least 1; default `queries`. */
  keys?: number;
}

/** Numbers, or a tensor that may be learned. */
export type Learnable = tf.Tensor | number[];

/** The bias that factors and a band stand for, [B or 1, H or 1, T, S]: for tests and pictures, since it is what they save. */
export function denseBias({ phiQ, phiK, band }: BiasFactors & { band?: tf.Tensor }): tf.Tensor {
  return tf.tidy(() => {
    const product = factorProduct(phiQ, phiK);
    if (!band) return product;
    const [T, S] = [phiQ.shape[1] as number, phiK.shape[1] as number];
    return tf.add(product, spreadBand(band, T, S, S - T));
  });
}

/** Positions of queries and keys, centred on the last key, so that they are small where most attention goes at the end of a long text. */
export function positionsOf(name: string, { queries, keys = queries }: Lengths): { q: Float32Array; k: Float32Array } {
  checkPositiveInt(name, 'queries', queries);
  checkPositiveInt(name, 'keys', keys);
  return {
    q: Float32Array.from({ length: queries }, (_, i) => i + 1 - queries),
    k: Float32Array.from({ length: keys }, (_, j) => j + 1 - keys),
  };
}

/** One number for each head as a tensor [H]. */
export function perHead(name: string, what: string, x: Learnable): tf.Tensor1D {
  const tensor = x instanceof tf.Tensor ? x : tf.tensor1d(x, 'float32');
  if (tensor.shape.length !== 1 || tensor.size === 0)
    throw new RangeError(`${name}: ${what} must have shape [H], got [${tensor.shape}]`);
  return tensor as tf.Tensor1D;
}

/** Columns [.., tokens, heads] side by side on a last axis. */
export const columns = (...xs: tf.Tensor[]): tf.Tensor => tf.stack(xs, xs[0].rank);
