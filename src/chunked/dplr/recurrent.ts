/** The generalised delta rule, one token at a time: the recurrence itself. */
import * as tf from '@tensorflow/tfjs';
import type { DeltaOutput } from '../delta/inputs.js';
import { finiteGate } from '../finiteGate.js';
import { unstack } from '../unstack.js';
import type { DplrInputs } from './index.js';

/** S_t = exp(g_t) S_{t-1} + b_t (S_{t-1}^T a_t)^T + k_t v_t^T, o_t = scale * S_t^T q_t (README, section 1). Same contract as `dplr`. */
export function recurrentDplr({ q, k, v, a, b, g, initialState }: DplrInputs, scale: number): DeltaOutput {
  const [B, , H, K] = q.shape;
  const V = v.shape[3] as number;
  const rows = (x: tf.Tensor) => unstack(x).map((part) => part.reshape([B, H, 1, -1]));
  const columns = (x: tf.Tensor) => unstack(x).map((part) => part.reshape([B, H, -1, 1]));
  const [queries, reads, values] = [tf.mul(q, scale), a, v].map(rows);
  const [keys, writes, decays] = [k, b, tf.exp(finiteGate(g))].map(columns);
  let S: tf.Tensor = initialState ?? tf.zeros([B, H, K, V]);
  const o = queries.map((query, t) => {
    const rank1 = tf.mul(writes[t], tf.matMul(reads[t], S));
    S = tf.add(tf.add(tf.mul(decays[t], S), rank1), tf.mul(keys[t], values[t]));
    return tf.matMul(query, S).reshape([B, 1, H, V]);
  });
  return { o: tf.concat(o, 1), finalState: S };
}
