/** Gated linear attention, all pairs of tokens at once: O(T^2 K) memory and time, for tests and short inputs. */
import * as tf from '@tensorflow/tfjs';
import { finiteGate } from '../finiteGate.js';
import type { GlaInputs, GlaOutput } from './index.js';

/** O = P V + (Q * exp(G)) S_0 with P_ij = sum_d q_id k_jd exp(G_id - G_jd), j <= i (README, section 2). Same contract as `gla`. */
export function parallelGla({ q, k, v, g, initialState }: GlaInputs, scale: number): GlaOutput {
  const [B, T, H, K] = q.shape;
  const channelsFirst = (x: tf.Tensor) => tf.transpose(x.reshape([B, T, H, -1]), [0, 2, 3, 1]); // [B, H, *, T]
  const [Q, Kt, G] = [channelsFirst(tf.mul(q, scale)), channelsFirst(k), channelsFirst(finiteGate(g))];
  const values = tf.transpose(v, [0, 2, 1, 3]); // [B, H, T, V]

  const decay = pairDecays(G); // [B, H, K or 1, j, i]
  const products = tf.mul(tf.mul(Kt.reshape([B, H, K, T, 1]), Q.reshape([B, H, K, 1, T])), decay);
  const o = tf.matMul(tf.sum(products, 2), values, true); // scores are [j, i]
  const toEnd = decay.slice([0, 0, 0, 0, T - 1]).reshape([B, H, -1, T]); // from token j to the last
  const state = tf.matMul(tf.mul(Kt, toEnd), values);
  if (!initialState) return { o: tf.transpose(o, [0, 2, 1, 3]), finalState: state };

  const fromStart = tf.exp(tf.cumsum(G, 3)); // from the initial state to token i
  const carried = tf.matMul(tf.mul(Q, fromStart), initialState, true);
  const kept = tf.mul(tf.exp(tf.sum(G, 3, true)), initialState);
  return { o: tf.transpose(tf.add(o, carried), [0, 2, 1, 3]), finalState: tf.add(state, kept) };
}

/**
 * exp(G_i - G_j) for j <= i, else 0, as [..., j, i]. The difference is summed from the gates after j up to i, never subtracted:
 * exact to rounding however strong the decay. Masked entries have the exponent 0 or less, so nothing overflows.
 */
function pairDecays(g: tf.Tensor): tf.Tensor {
  const [B, H, K, T] = g.shape;
  const position = tf.range(0, T, 1);
  const [j, i] = [position.reshape([T, 1]), position.reshape([1, T])];
  const later = tf.cast(tf.greater(i, j), 'float32');
  const notBefore = tf.cast(tf.greaterEqual(i, j), 'float32');
  const sums = tf.cumsum(tf.mul(g.reshape([B, H, K, 1, T]), later), 4); // the last axis: the stock gradient is wrong on others
  return tf.mul(tf.exp(sums), notBefore);
}
