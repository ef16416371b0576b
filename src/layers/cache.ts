/** Caches that grow by the tokens read: what attention keeps of the past. */
import * as tf from '@tensorflow/tfjs';

/**
 * past [B, S, ...] and now [B, T, ...] -> [B, S + T, ...]. A state is a value, so this copies the past: the bytes that attention
 * reads anyway, and a decoded token stays linear in S.
 */
export function append(past: tf.Tensor | undefined, now: tf.Tensor): tf.Tensor {
  return past?.shape[1] ? tf.concat([past, now], 1) : now;
}

/** The last `n` of [B, S, G, D] along S. */
export function keepLast(x: tf.Tensor, n: number): tf.Tensor {
  const [B, S, G, D] = x.shape as [number, number, number, number];
  return n === S ? x : tf.slice(x, [0, S - n, 0, 0], [B, n, G, D]);
}
