/** The solve in chunks, plain TensorFlow.js ops: no H_t but those between chunks is ever formed. Linear in T, on every backend. */
import * as tf from '@tensorflow/tfjs';
import { fromChunks, type Layout, layoutOf, toChunks } from '../chunks.js';
import { finiteGate } from '../finiteGate.js';
import { scanStates } from '../gla/chunk.js';
import type { OpOutput } from '../packed.js';
import { scoreTree } from '../scoreTree.js';
import type { SolveInputs, SolveOptions } from './run.js';
import { solveRidge, type TokenMatrices } from './solve.js';

/** README, section 4. Same contract as `recurrentSolve`. */
export function chunkSolve(inputs: SolveInputs, options: SolveOptions): OpOutput {
  const [B, T, H, D] = inputs.q.shape;
  const layout = layoutOf(B, T, H, options.chunkSize);
  const { parts, final } = chunkParts(inputs, layout);
  const x = solveRidge(toChunks(inputs.q, layout), parts, chunkMatrices, options);
  return { o: fromChunks(x, layout), finalState: final.reshape([B, H, D, D]) };
}

/** What the matrices of all tokens are made of, and the last one. The states between chunks are those of `gla` with the keys as values. */
export function chunkParts({ k, g, kk }: Omit<SolveInputs, 'q'>, layout: Layout) {
  const [B, , H, D] = k.shape;
  const keys = toChunks(k, layout);
  const { pairs, sinceStart, untilEnd, gate } = decays(toChunks(finiteGate(tf.expandDims(g, 3)), layout));
  const rows = (x: tf.Tensor) => x.reshape([B, -1, H, D * D]);
  const writes = rows(tf.matMul(tf.mul(keys, untilEnd), keys, true));
  const start = rows(kk ?? tf.zeros([B, H, D, D]));
  const { before, final } = scanStates(writes, gate.reshape([B, layout.N, H, 1]), start);
  return { parts: [before.reshape([-1, D, D]), keys, pairs, sinceStart], final };
}

/**
 * Decays inside chunks, from gates [n, slots, 1]: `pairs` [n, slots, slots] from after token j through token i (j <= i, else 0), `sinceStart`
 * [n, slots, 1] through token i, `untilEnd` after token j; and the sum of the chunk's gates [n, 1, 1].
 */
function decays(gates: tf.Tensor) {
  const [n, slots] = gates.shape;
  const keys = tf.ones([n, slots, 1]);
  const tree = scoreTree({ queries: tf.exp(gates), keys, gates, own: tf.ones([n * slots, 1, 1]) });
  return { pairs: tree.scores, sinceStart: tree.queries, untilEnd: tree.keys, gate: tree.gate };
}

/** H_t = sinceStart_t H + sum_j pairs_tj k_j k_j^T, with H [n, D, D] the state before the chunk; keys [n, slots, D]. */
export function chunkMatrices([H, keys, pairs, sinceStart]: tf.Tensor[]): TokenMatrices {
  const [n, slots, D] = keys.shape;
  return {
    times(x) {
      const scores = tf.mul(tf.matMul(x, keys, false, true), pairs);
      return tf.add(tf.mul(sinceStart, tf.matMul(x, H)), tf.matMul(scores, keys));
    },
    squaredNorms() {
      const ofState = tf.sum(tf.square(H), [1, 2]).reshape([n, 1, 1]);
      const mixed = tf.matMul(pairs, tf.sum(tf.mul(keys, tf.matMul(keys, H)), 2, true)); // k_j^T H k_j, decayed
      const ofKeys = tf.sum(tf.mul(tf.matMul(pairs, tf.square(tf.matMul(keys, keys, false, true))), pairs), 2, true);
      return tf.add(tf.mul(sinceStart, tf.add(tf.mul(sinceStart, ofState), tf.mul(2, mixed))), ofKeys);
    },
    materialised() {
      const products = tf.mul(keys.reshape([n * slots, D, 1]), keys.reshape([n * slots, 1, D]));
      const written = tf.matMul(pairs, products.reshape([n, slots, D * D]));
      return tf.add(tf.mul(sinceStart, H.reshape([n, 1, D * D])), written).reshape([n * slots, D, D]);
    },
  };
}
