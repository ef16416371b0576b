/** Heads that share queries and keys. */
import * as tf from '@tensorflow/tfjs';

/** [B, T, H, K] -> [B, T, heads, K], every head repeated heads / H times in a row. (`tf.tile` of rank 5 has no gradient.) */
export function repeatHeads(x: tf.Tensor, heads: number): tf.Tensor {
  const [B, T, H, K] = x.shape;
  if (heads === H) return x;
  return tf.concat(Array<tf.Tensor>(heads / H).fill(x), 3).reshape([B, T, heads, K]);
}
