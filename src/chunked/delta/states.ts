/** The only sequential part of the chunk forms: the state from chunk to chunk. */
import * as tf from '@tensorflow/tfjs';
import type { Layout } from '../chunks.js';
import { unstack } from '../unstack.js';

/** What a chunk does to the state, for all chunks at once; first axis B * N * H. */
export interface ChunkMaps {
  /** [.., slots, K] and [.., slots, V]: pseudo-values = reads S + constants. */
  reads: tf.Tensor;
  constants: tf.Tensor;
  /** [.., slots, K]: keys of the pseudo-values, decayed to the end of the chunk. */
  keys: tf.Tensor;
  /** [.., 1, K or 1]: sum of the gates of the chunk. */
  gate: tf.Tensor;
  /** [.., K, V]: what else is written; absent for nothing. */
  writes?: tf.Tensor;
}

/**
 * Z = reads S + constants and S' = exp(gate) S + keys^T Z + writes, chunk after chunk from `start` [B, H, K, V].
 * @returns before [B * N * H, K, V]: the state before every chunk; pseudoValues [B * N * H, slots, V]; final [B, H, K, V]
 */
export function scanChunks({ reads, constants, keys, gate, writes }: ChunkMaps, start: tf.Tensor, { B, N, H }: Layout) {
  const [, , K, V] = start.shape;
  const each = (x: tf.Tensor, rows: number, columns: number) =>
    unstack(x.reshape([B, N, H * rows * columns])).map((part) => part.reshape([B * H, rows, columns]));
  const slots = reads.shape[1] as number;
  const [read, key] = [reads, keys].map((x) => each(x, slots, K));
  const constant = each(constants, slots, V);
  const decay = each(tf.exp(gate), gate.shape[2] as number, 1);
  const write = writes && each(writes, K, V);
  const states: tf.Tensor[] = [];
  const pseudo: tf.Tensor[] = [];
  let S = start.reshape([B * H, K, V]);
  for (let n = 0; n < N; n++) {
    const Z = tf.add(constant[n], tf.matMul(read[n], S));
    states.push(S);
    pseudo.push(Z);
    S = tf.add(tf.mul(decay[n], S), tf.matMul(key[n], Z, true));
    if (write) S = tf.add(S, write[n]);
  }
  const join = (xs: tf.Tensor[]) => {
    const [, rows, columns] = xs[0].shape;
    const flat = xs.map((x) => x.reshape([B, 1, H * rows * columns]));
    return tf.concat(flat, 1).reshape([B * N * H, rows, columns]);
  };
  return { before: join(states), pseudoValues: join(pseudo), final: S.reshape([B, H, K, V]) };
}
