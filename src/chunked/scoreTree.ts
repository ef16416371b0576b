/** Decayed scores inside chunks, for the plain chunk forms of every gated op. */
import * as tf from '@tensorflow/tfjs';
import { pad } from './chunks.js';

/** A token may carry several queries and several keys (L and R of them), side by side in its rows. */
export interface ScoreTreeInputs {
  /** [chunks, slots * L, K]: what reads, decayed by the gate of its own token where it reads after that decay. */
  queries: tf.Tensor;
  /** [chunks, slots * R, K]: what is written. */
  keys: tf.Tensor;
  /** [chunks, slots, K] per channel, or [chunks, slots, 1] per head. */
  gates: tf.Tensor;
  /** [chunks * slots, L, R]: the scores of a token with itself. */
  own: tf.Tensor;
}

/**
 * Scores A_ij = sum_d q_id k_jd exp(sum of the gates after j up to i) for j < i, and `own` for j = i, by merging neighbouring blocks
 * of 1, 2, 4, ... tokens until a chunk is whole. While it runs, `queries` are decayed from their block's start, `keys` to their
 * block's end, and `gate` is the sum of gates over the block. A merge needs one product for the corner "rows of the upper block,
 * columns of the lower", and then stretches queries and keys over the other block. Every exponent is a sum of gates: nothing
 * overflows, nothing cancels. A query without its own token's decay (it reads before) keeps out that gate all the way.
 * @returns scores [chunks, slots * L, slots * R]; queries decayed from the chunk's start; keys decayed to its end; the chunk's gate
 * [chunks, 1, K or 1]
 */
export function scoreTree({ queries, keys, gates, own }: ScoreTreeInputs) {
  const [chunks, slots, Kg] = gates.shape;
  const K = keys.shape[2] as number;
  const [, L, R] = own.shape;
  let gate = gates;
  let scores = own;
  for (let size = 1; size < slots; size *= 2) {
    const pairs = (chunks * slots) / (2 * size);
    const block = (x: tf.Tensor, which: 0 | 1, rows: number) =>
      tf.slice(x.reshape([pairs, 2, rows * K]), [0, which, 0], [pairs, 1, rows * K]).reshape([pairs, rows, K]);
    const corner = tf.matMul(block(queries, 1, size * L), block(keys, 0, size * R), false, true);
    scores = merge(scores, corner);
    const [lower, upper] = tf.split(tf.exp(gate).reshape([pairs, 2, Kg]), 2, 1);
    const stretch = (x: tf.Tensor, by: tf.Tensor) =>
      tf.mul(x.reshape([pairs, 2, -1, K]), by.reshape([pairs, 2, 1, Kg]));
    queries = stretch(queries, pad(lower, 1, [1, 0], 1));
    keys = stretch(keys, pad(upper, 1, [0, 1], 1));
    gate = tf.sum(gate.reshape([pairs, 2, Kg]), 1);
  }
  return {
    scores: scores.reshape([chunks, slots * L, slots * R]),
    queries: queries.reshape([chunks, slots * L, K]),
    keys: keys.reshape([chunks, slots * R, K]),
    gate: gate.reshape([chunks, 1, Kg]),
  };
}

/** [[A_lower, 0], [corner, A_upper]] for every pair of blocks; corner [pairs, rows, columns]. */
function merge(blocks: tf.Tensor, corner: tf.Tensor): tf.Tensor {
  const [pairs, rows, columns] = corner.shape;
  const diagonal = tf.mul(blocks.reshape([pairs, 2, rows, 1, columns]), tf.eye(2).reshape([1, 2, 1, 2, 1]));
  const placed = pad(pad(corner, 2, [0, columns]), 1, [rows, 0]);
  return tf.add(diagonal.reshape([pairs, 2 * rows, 2 * columns]), placed);
}
