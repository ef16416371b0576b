/** Dropout (Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html), inverted: kept values are scaled up in training. */
import * as tf from '@tensorflow/tfjs';
import { maskedScale } from '../chunked/index.js';
import type { Rng } from '../rng.js';

export interface DropoutOptions {
  /** One choice per (batch, feature), shared along time, as state-space models do; default false: one per element. */
  tied?: boolean;
}

/**
 * Each value is 0 with probability `rate`, else multiplied by 1 / (1 - rate).
 * @param x [B, T, D], float32
 * @param rate in [0, 1)
 * @param rng draws the masks, one word of it per choice; undefined (not in training), or a rate of 0: y = x and nothing is drawn
 * @throws RangeError for a rate outside [0, 1)
 */
export function dropout(
  x: tf.Tensor,
  rate: number,
  rng: Rng | undefined,
  { tied = false }: DropoutOptions = {},
): tf.Tensor {
  if (!(rate >= 0 && rate < 1)) throw new RangeError(`dropout: rate must be at least 0 and below 1, got ${rate}`);
  if (!rng || rate === 0) return tf.clone(x);
  const [B, , D] = x.shape;
  return tf.tidy(() => {
    if (tied) return maskedScale({ x, mask: dropoutMask(rng, rate, [B, D as number]) });
    return tf.mul(x, dropoutMask(rng, rate, x.shape));
  });
}

/** 0 with probability `rate`, else 1 / (1 - rate). */
function dropoutMask(rng: Rng, rate: number, shape: number[]): tf.Tensor {
  const dropped = rate * 2 ** 32;
  const size = tf.util.sizeFromShape(shape);
  return tf.tensor(
    Float32Array.from({ length: size }, () => (rng.uint32() < dropped ? 0 : 1 / (1 - rate))),
    shape,
  );
}
