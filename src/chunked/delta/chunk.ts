/** The delta rules in chunks, plain TensorFlow.js ops: linear in T, differentiable by itself on every backend. */
import * as tf from '@tensorflow/tfjs';
import { fromChunks, layoutOf, toChunks } from '../chunks.js';
import { finiteGate } from '../finiteGate.js';
import { scoreTree } from '../scoreTree.js';
import { repeatHeads } from './heads.js';
import type { AnyDeltaInputs, DeltaOutput } from './inputs.js';
import { solveUnitLower } from './solve.js';
import { scanChunks } from './states.js';

/** O = Qg S + P Delta with Delta = U - W S, chunk by chunk (README, section 3). Same contract as the ops. */
export function chunkDelta(
  { q, k, v, beta, g, initialState }: AnyDeltaInputs,
  scale: number,
  chunkSize: number,
): DeltaOutput {
  const [B, T, HV, V] = v.shape;
  const K = q.shape[3] as number;
  const layout = layoutOf(B, T, HV, chunkSize);
  const { P, U, W, queries, keys, gate } = chunkQuantities({
    q: toChunks(repeatHeads(tf.mul(q, scale), HV), layout),
    k: toChunks(repeatHeads(k, HV), layout),
    v: toChunks(v, layout),
    beta: toChunks(tf.expandDims(beta, 3), layout),
    g: toChunks(gatesOf(g, [B, T, HV]), layout),
  });
  const start = initialState ?? tf.zeros([B, HV, K, V]);
  const { before, pseudoValues, final } = scanChunks({ reads: tf.neg(W), constants: U, keys, gate }, start, layout);
  const o = tf.add(tf.matMul(queries, before), tf.matMul(P, pseudoValues));
  return { o: fromChunks(o, layout), finalState: final };
}

/** [B, T, HV, K or 1]; no gate is a gate of 0. */
function gatesOf(g: tf.Tensor | undefined, perHead: number[]): tf.Tensor {
  if (!g) return tf.zeros([...perHead, 1]);
  return finiteGate(g.shape.length === 3 ? tf.expandDims(g, 3) : g);
}

/** Tokens in chunks: q, k [n, slots, K]; v [n, slots, V]; beta [n, slots, 1]; g [n, slots, K or 1]. */
export type DeltaChunks = Record<'q' | 'k' | 'v' | 'beta' | 'g', tf.Tensor>;

/**
 * All of a chunk that does not depend on the state before it. Decays: A_ij = sum_d k_id k_jd a(j..i]_d for j < i, P likewise with q_i for
 * j <= i [n, slots, slots]; U, W = (I + diag(beta) A)^-1 diag(beta) (v, decayed k) [n, slots, V or K]; queries decayed from the chunk's start and keys
 * to its end [n, slots, K]; gate: sum of the chunk's gates [n, 1, K or 1].
 */
export function chunkQuantities({ q, k, v, beta, g }: DeltaChunks) {
  const [n, slots, K] = q.shape;
  const decay = tf.exp(g);
  const tree = scoreTree({
    queries: tf.concat([tf.mul(q, decay), tf.mul(k, decay)], 2).reshape([n, 2 * slots, K]),
    keys: k,
    gates: g,
    own: tf.pad(tf.sum(tf.mul(q, k), 2).reshape([n * slots, 1, 1]), [
      [0, 0],
      [0, 1],
      [0, 0],
    ]),
  });
  const [P, A] = tf.split(tree.scores.reshape([n, slots, 2 * slots]), 2, 2);
  const [queries, Kg] = tf.split(tree.queries.reshape([n, slots, 2 * K]), 2, 2);
  const solved = solveUnitLower(tf.mul(beta, A), tf.mul(beta, tf.concat([v, Kg], 2)));
  const [U, W] = tf.split(solved, [v.shape[2] as number, K], 2);
  return { A, P, U, W, queries, keys: tree.keys, gate: tree.gate };
}
