/** Heads in and out of the channel axis, and the sharing of key/value heads. */
import * as tf from '@tensorflow/tfjs';

/** [B, T, H * D] -> [B, T, H, D] */
export function splitHeads(x: tf.Tensor, heads: number): tf.Tensor {
  const [B, T, width] = x.shape;
  return tf.reshape(x, [B, T, heads, width / heads]);
}

/** [B, T, H, D] -> [B, T, H * D] */
export function mergeHeads(x: tf.Tensor): tf.Tensor {
  const [B, T, H, D] = x.shape;
  return tf.reshape(x, [B, T, H * D]);
}

/**
 * Repeats each kv head `times` times in a row: [B, T, G * D] -> [B, T, G * times, D], where head h is kv head floor(h / times).
 * Rows of one kv head are laid side by side, [B * T * G, times * D], which is that order already; a rank-2 `concat` has a gradient
 * on every backend, a rank-5 `tile` has none.
 */
export function repeatHeads(x: tf.Tensor, kvHeads: number, times: number): tf.Tensor {
  const [B, T, width] = x.shape;
  const D = width / kvHeads;
  if (times === 1) return splitHeads(x, kvHeads);
  const rows = tf.reshape(x, [B * T * kvHeads, D]);
  const repeated = tf.concat(Array<tf.Tensor>(times).fill(rows), 1);
  return tf.reshape(repeated, [B, T, kvHeads * times, D]);
}
