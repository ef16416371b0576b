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
 * A product with ones broadcasts: on wasm several times faster, with its gradient, than `concat` or `tile`.
 */
export function repeatHeads(x: tf.Tensor, kvHeads: number, times: number): tf.Tensor {
  const [B, T, width] = x.shape;
  const D = width / kvHeads;
  if (times === 1) return splitHeads(x, kvHeads);
  const repeated = tf.mul(tf.reshape(x, [B * T * kvHeads, 1, D]), tf.ones([1, times, 1]));
  return tf.reshape(repeated, [B, T, kvHeads * times, D]);
}
