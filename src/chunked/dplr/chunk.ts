/** The generalised delta rule in chunks, plain TensorFlow.js ops: linear in T, differentiable by itself on every backend. */
import * as tf from '@tensorflow/tfjs';
import { fromChunks, layoutOf, toChunks } from '../chunks.js';
import type { DeltaOutput } from '../delta/inputs.js';
import { solveUnitLower } from '../delta/solve.js';
import { scanChunks } from '../delta/states.js';
import { finiteGate } from '../finiteGate.js';
import { scoreTree } from '../scoreTree.js';
import type { DplrInputs } from './index.js';

/** O = Qg S + Aqk V + Aqb Z with Z = U + W S, chunk by chunk (README, section 2). Same contract as `dplr`. */
export function chunkDplr(
  { q, k, v, a, b, g, initialState }: DplrInputs,
  scale: number,
  chunkSize: number,
): DeltaOutput {
  const [B, T, H, K] = q.shape;
  const V = v.shape[3] as number;
  const layout = layoutOf(B, T, H, chunkSize);
  const [qs, ks, values, as, bs, gs] = [tf.mul(q, scale), k, v, a, b, finiteGate(g)].map((x) => toChunks(x, layout));
  const x = chunkQuantities({ q: qs, k: ks, v: values, a: as, b: bs, g: gs });
  const maps = { reads: x.W, constants: x.U, keys: x.Bc, gate: x.gate, writes: tf.matMul(x.Kc, values, true) };
  const { before, pseudoValues, final } = scanChunks(maps, initialState ?? tf.zeros([B, H, K, V]), layout);
  const written = tf.add(tf.matMul(x.Aqk, values), tf.matMul(x.Aqb, pseudoValues));
  return { o: fromChunks(tf.add(tf.matMul(x.queries, before), written), layout), finalState: final };
}

/** Tokens in chunks: q, k, a, b, g [n, slots, K]; v [n, slots, V]. */
export type DplrChunks = Record<'q' | 'k' | 'v' | 'a' | 'b' | 'g', tf.Tensor>;

/**
 * All of a chunk that does not depend on the state before it: scores Aqk, Aqb (with the own token), Aak, Aab (without; a reads before the
 * decay of its token) [n, slots, slots]; U, W = (I - Aab)^-1 (Aak v, decayed a) [n, slots, V or K]; queries decayed from the chunk's start, Kc and Bc
 * to its end [n, slots, K]; gate: sum of the chunk's gates [n, 1, K].
 */
export function chunkQuantities({ q, k, v, a, b, g }: DplrChunks) {
  const [n, slots, K] = q.shape;
  const pairs = (x: tf.Tensor, y: tf.Tensor) => tf.concat([x, y], 2).reshape([n, 2 * slots, K]);
  const own = tf.concat([tf.sum(tf.mul(q, k), 2, true), tf.sum(tf.mul(q, b), 2, true)], 2);
  const tree = scoreTree({
    queries: pairs(tf.mul(q, tf.exp(g)), a),
    keys: pairs(k, b),
    gates: g,
    own: tf.pad(own.reshape([n * slots, 1, 2]), [
      [0, 0],
      [0, 1],
      [0, 0],
    ]),
  });
  const halves = (x: tf.Tensor) => tf.split(x.reshape([n, slots, -1]), 2, 2);
  const byKey = (x: tf.Tensor) =>
    tf.split(x.reshape([n * slots, slots, 2]), 2, 2).map((y) => y.reshape([n, slots, slots]));
  const [[Aqk, Aqb], [Aak, Aab]] = halves(tree.scores).map(byKey);
  const [queries, Ag] = halves(tree.queries);
  const [Kc, Bc] = halves(tree.keys);
  const solved = solveUnitLower(tf.neg(Aab), tf.concat([tf.matMul(Aak, v), Ag], 2));
  const [U, W] = tf.split(solved, [v.shape[2] as number, K], 2);
  return { Aqk, Aqb, Aak, Aab, U, W, queries, Kc, Bc, gate: tree.gate };
}
