/** The delta rules, one token at a time: the recurrence itself. */
import * as tf from '@tensorflow/tfjs';
import { finiteGate } from '../finiteGate.js';
import { unstack } from '../unstack.js';
import { repeatHeads } from './heads.js';
import type { AnyDeltaInputs, DeltaOutput } from './inputs.js';

/**
 * R = exp(g_t) S_{t-1}, S_t = R + k_t (beta_t (v_t - R^T k_t))^T, o_t = scale * S_t^T q_t (README, section 1). Same contract as the ops.
 */
export function recurrentDelta({ q, k, v, beta, g, initialState }: AnyDeltaInputs, scale: number): DeltaOutput {
  const [B, , HV, V] = v.shape;
  const K = q.shape[3] as number;
  const decays = g && unstack(tf.exp(finiteGate(g))).map((x) => x.reshape([B, HV, -1, 1])); // K or 1 channels
  const queries = unstack(repeatHeads(tf.mul(q, scale), HV)).map((x) => x.reshape([B, HV, 1, K]));
  const keys = unstack(repeatHeads(k, HV)).map((x) => x.reshape([B, HV, 1, K]));
  const values = unstack(v).map((x) => x.reshape([B, HV, 1, V]));
  const strengths = unstack(beta).map((x) => x.reshape([B, HV, 1, 1]));
  let S: tf.Tensor = initialState ?? tf.zeros([B, HV, K, V]);
  const o = queries.map((query, t) => {
    if (decays) S = tf.mul(decays[t], S);
    const delta = tf.mul(strengths[t], tf.sub(values[t], tf.matMul(keys[t], S)));
    S = tf.add(S, tf.mul(keys[t].reshape([B, HV, K, 1]), delta));
    return tf.matMul(query, S).reshape([B, 1, HV, V]);
  });
  return { o: tf.concat(o, 1), finalState: S };
}
