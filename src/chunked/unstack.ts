/** Slices along the second axis, for forms that loop over tokens or chunks. */
import * as tf from '@tensorflow/tfjs';

/**
 * The N slices [B, 1, ...] of x [B, N, ...]. Halved again and again, because the wasm backend's `Slice` copies its whole input: N
 * slices of one long tensor would cost N^2.
 */
export function unstack(x: tf.Tensor): tf.Tensor[] {
  const N = x.shape[1] as number;
  if (N === 1) return [x];
  return tf.split(x, [N >> 1, N - (N >> 1)], 1).flatMap(unstack);
}
