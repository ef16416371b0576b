/** Gated linear attention in chunks, plain TensorFlow.js ops: linear in T, differentiable by itself on every backend. */
import * as tf from '@tensorflow/tfjs';
import { cutEnd, fromChunks, layoutOf, pad, toChunks } from '../chunks.js';
import { finiteGate } from '../finiteGate.js';
import { scoreTree } from '../scoreTree.js';
import type { GlaInputs, GlaOutput } from './index.js';

/**
 * Chunk form (README, sections 3 and 4): O = Qg S + A V for every chunk at once, where S is the state before the chunk,
 * Qg = Q * exp(sum of gates from the chunk's start), and A holds the decayed scores inside the chunk. Same contract as `gla`.
 */
export function chunkGla({ q, k, v, g, initialState }: GlaInputs, scale: number, chunkSize: number): GlaOutput {
  const [B, T, H, K] = q.shape;
  const V = v.shape[3] as number;
  const layout = layoutOf(B, T, H, chunkSize);
  const gates = toChunks(finiteGate(g.shape.length === 3 ? tf.expandDims(g, 3) : g), layout);
  const values = toChunks(v, layout);
  const [qs, ks] = [tf.mul(q, scale), k].map((x) => toChunks(x, layout)); // [B * N * H, slots, K]
  const own = tf.sum(tf.mul(qs, ks), 2).reshape([-1, 1, 1]);
  const { scores, queries, keys, gate } = scoreTree({ queries: tf.mul(qs, tf.exp(gates)), keys: ks, gates, own });

  const Kg = gates.shape[2] as number; // K, or 1 with one gate per head
  const rows = (x: tf.Tensor) => x.reshape([B, -1, H * Kg, (K / Kg) * V]); // rows of a state that decay alike
  const writes = tf.matMul(keys, values, true);
  const start = initialState ?? tf.zeros([B, H, K, V]);
  const { before, final } = scanStates(rows(writes), gate.reshape([B, layout.N, H * Kg, 1]), rows(start));

  const o = tf.add(tf.matMul(scores, values), tf.matMul(queries, before.reshape([-1, K, V])));
  return { o: fromChunks(o, layout), finalState: final.reshape([B, H, K, V]) };
}

/**
 * The state before every chunk, and after the last: S_{n+1} = exp(gate_n) * S_n + write_n, with write [B, N, R, W], gate
 * [B, N, R, 1] and start [B, 1, R, W]. Pairs of chunks are merged into one until one is left, then the states are handed down:
 * log2(N) rounds of few large ops instead of N rounds of small ones.
 */
export function scanStates(
  write: tf.Tensor,
  gate: tf.Tensor,
  start: tf.Tensor,
): { before: tf.Tensor; final: tf.Tensor } {
  const [B, N, R, W] = write.shape;
  if (N === 1) return { before: start, final: tf.add(tf.mul(tf.exp(gate), start), write) };
  const half = Math.ceil(N / 2);
  const pair = (x: tf.Tensor, n: number) => pad(x, 1, [0, 2 * half - N]).reshape([B * half, 2, n]);
  const [gates, writes] = [pair(gate, R), pair(write, R * W)];
  const [lower, upper] = tf.split(tf.exp(gates), 2, 1).map((x) => x.reshape([B, half, R, 1]));
  const [first, second] = tf.split(writes, 2, 1).map((x) => x.reshape([B, half, R, W]));
  const merged = tf.add(tf.mul(upper, first), second);
  const { before, final } = scanStates(merged, tf.sum(gates, 1).reshape([B, half, R, 1]), start);
  const between = tf.add(tf.mul(lower, before), first);
  // Not `stack`: its gradient slices a tensor of rank 5, which is very slow on wasm.
  const all = tf.concat(
    [before, between].map((x) => x.reshape([B * half, 1, R * W])),
    1,
  );
  return { before: cutEnd(all.reshape([B, 2 * half, R, W]), 1, N), final };
}
