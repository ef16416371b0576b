/** Gated linear attention, all pairs of tokens at once: O(T^2 K) memory, for tests and short inputs. */
import * as tf from '@tensorflow/tfjs';
import { finiteGate } from '../finiteGate.js';
import type { GlaInputs, GlaOutput } from './index.js';

/** O = P V + (Q * exp(G)) S_0 with P_ij = sum_d q_id k_jd exp(G_id - G_jd), j <= i (README, section 2). Same contract as `gla`. */
export function parallelGla({ q, k, v, g, initialState }: GlaInputs, scale: number): GlaOutput {
  const [B, T, H, K] = q.shape;
  const channelsFirst = (x: tf.Tensor) => tf.transpose(x.reshape([B, T, H, -1]), [0, 2, 3, 1]); // [B, H, *, T]
  const [Q, Kt, G] = [channelsFirst(tf.mul(q, scale)), channelsFirst(k), channelsFirst(finiteGate(g))];
  const values = tf.transpose(v, [0, 2, 1, 3]); // [B, H, T, V]

  const decay = pairDecays(G); // [B * H * (K or 1), j, i]
  const products = tf.mul(
    tf.mul(Kt.reshape([B, H, K, T, 1]), Q.reshape([B, H, K, 1, T])),
    decay.reshape([B, H, -1, T, T]),
  );
  const o = tf.matMul(tf.sum(products, 2), values, true); // scores are [j, i]
  const toEnd = decay.slice([0, 0, T - 1]).reshape([B, H, -1, T]); // from token j to the last
  const state = tf.matMul(tf.mul(Kt, toEnd), values);
  if (!initialState) return { o: tf.transpose(o, [0, 2, 1, 3]), finalState: state };

  const fromStart = tf.exp(runningSum(G)); // from the initial state to token i
  const carried = tf.matMul(tf.mul(Q, fromStart), initialState, true);
  const kept = tf.mul(tf.exp(tf.sum(G, 3, true)), initialState);
  return { o: tf.transpose(tf.add(o, carried), [0, 2, 1, 3]), finalState: tf.add(state, kept) };
}

/**
 * exp(G_i - G_j) for j <= i, else 0, as [B * H * K, j, i]. The difference is summed from the gates after j up to i, never
 * subtracted: exact to rounding however strong the decay. Masked entries have the exponent 0 or less, so nothing overflows.
 */
function pairDecays(g: tf.Tensor): tf.Tensor {
  const [B, H, K, T] = g.shape;
  const [later, notBefore] = [order(T, tf.greater), order(T, tf.greaterEqual)]; // [j, i]
  const gatesAfter = tf.mul(g.reshape([B * H * K, 1, T]), later); // row j: the gates of tokens after j
  return tf.mul(tf.exp(runningSum(gatesAfter)), notBefore);
}

/**
 * Cumulative sum over the last axis, as a product with a triangle of ones: `tf.cumsum` has a wrong gradient on all other axes,
 * and on webgpu wrong values when reversed (which its gradient is).
 */
function runningSum(x: tf.Tensor): tf.Tensor {
  const T = x.shape[x.rank - 1] as number;
  return tf.matMul(x.reshape([-1, T]), order(T, tf.greaterEqual)).reshape(x.shape);
}

/** [T, T] of 1 where the column (second token) stands in this relation to the row (first token), else 0. */
function order(T: number, relation: typeof tf.greater): tf.Tensor {
  const position = tf.range(0, T, 1);
  return tf.cast(relation(position.reshape([1, T]), position.reshape([T, 1])), 'float32');
}
