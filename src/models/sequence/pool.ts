/** From the steps of a sequence to one vector. */
import * as tf from '@tensorflow/tfjs';
import type { EncoderConfig } from './config.js';

/**
 * A weighted sum over the valid steps: each of the ways is one row of weights per sequence, so that a product of matrices does it.
 * @param x [B, T, D]
 * @param lengths steps of each sequence; all T if absent
 * @returns [B, D]
 */
export function pool(x: tf.Tensor, way: EncoderConfig['pool'], lengths?: Int32Array): tf.Tensor2D {
  const [B, T, D] = x.shape as [number, number, number];
  return tf.tidy(() => {
    const weights = tf.tensor3d(poolWeights(B, T, way, lengths), [B, 1, T]);
    return tf.reshape(tf.matMul(weights, x), [B, D]) as tf.Tensor2D;
  });
}

function poolWeights(B: number, T: number, way: EncoderConfig['pool'], lengths?: Int32Array): Float32Array {
  const weights = new Float32Array(B * T);
  for (let b = 0; b < B; b++) {
    const length = lengths?.[b] ?? T;
    const row = weights.subarray(b * T, b * T + length);
    if (way === 'first') row[0] = 1;
    else if (way === 'last') row[length - 1] = 1;
    else row.fill(way === 'mean' ? 1 / length : 1);
  }
  return weights;
}
