/** Heads in and out of the channel axis, the sharing of key/value heads, and the norm over each head of an output. */
import * as tf from '@tensorflow/tfjs';
import { gatedRmsNorm, rmsNorm } from '../chunked/index.js';

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

/**
 * RMSNorm over each head, times the activation of a gate where there is one.
 * @param o [B, T, H, V]
 * @param scaling `weight` [V], default ones; `gate` [B, T, H * V], before its activation
 * @returns [B, T, H, V]
 */
export function normHeads(
  o: tf.Tensor,
  { weight, gate }: { weight?: tf.Tensor; gate?: tf.Tensor },
  { eps, activation }: { eps: number; activation: 'silu' | 'sigmoid' },
): tf.Tensor {
  if (!gate) return rmsNorm({ x: o, weight }, { eps });
  return gatedRmsNorm({ x: o, gate: splitHeads(gate, o.shape[2] as number), weight }, { eps, activation });
}
