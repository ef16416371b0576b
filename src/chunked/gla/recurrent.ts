/** Gated linear attention, one token at a time: the recurrence itself. */
import * as tf from '@tensorflow/tfjs';
import { finiteGate } from '../finiteGate.js';
import { unstack } from '../unstack.js';
import type { GlaInputs, GlaOutput } from './index.js';

/** S_t = diag(exp(g_t)) S_{t-1} + k_t v_t^T, o_t = scale * S_t^T q_t (README, section 1). Same contract as `gla`. */
export function recurrentGla({ q, k, v, g, initialState }: GlaInputs, scale: number): GlaOutput {
  const [B, , H, K] = q.shape;
  const V = v.shape[3] as number;
  const decays = unstack(tf.exp(finiteGate(g))).map((d) => d.reshape([B, H, -1, 1])); // K or 1 channels
  const queries = unstack(tf.mul(q, scale)).map((x) => x.reshape([B, H, 1, K]));
  const keys = unstack(k).map((x) => x.reshape([B, H, K, 1]));
  const values = unstack(v).map((x) => x.reshape([B, H, 1, V]));
  let S: tf.Tensor = initialState ?? tf.zeros([B, H, K, V]);
  const o = queries.map((query, t) => {
    S = tf.add(tf.mul(decays[t], S), tf.mul(keys[t], values[t]));
    return tf.matMul(query, S).reshape([B, 1, H, V]);
  });
  return { o: tf.concat(o, 1), finalState: S };
}
