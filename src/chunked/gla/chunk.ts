/** Gated linear attention in chunks, plain TensorFlow.js ops: linear in T, differentiable by itself on every backend. */
import * as tf from '@tensorflow/tfjs';
import { finiteGate } from '../finiteGate.js';
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
  const { scores, queries, keys, gate } = scoreTree(toChunks(tf.mul(q, scale), layout), toChunks(k, layout), gates);

  const Kg = gates.shape[2] as number; // K, or 1 with one gate per head
  const rows = (x: tf.Tensor) => x.reshape([B, -1, H * Kg, (K / Kg) * V]); // rows of a state that decay alike
  const writes = tf.matMul(keys, values, true);
  const start = initialState ?? tf.zeros([B, H, K, V]);
  const { before, final } = scanStates(rows(writes), gate.reshape([B, layout.N, H * Kg, 1]), rows(start));

  const o = tf.add(tf.matMul(scores, values), tf.matMul(queries, before.reshape([-1, K, V])));
  return { o: fromChunks(o, layout), finalState: final.reshape([B, H, K, V]) };
}

/** N chunks of C tokens, each in `slots` rows: C rounded up to a power of two, because the score tree halves it. */
interface Layout {
  B: number;
  T: number;
  H: number;
  N: number;
  C: number;
  slots: number;
}

function layoutOf(B: number, T: number, H: number, chunkSize: number): Layout {
  const C = Math.min(chunkSize, T);
  return { B, T, H, N: Math.ceil(T / C), C, slots: 2 ** Math.ceil(Math.log2(C)) };
}

/** [B, T, H, D] -> [B * N * H, slots, D]. Rows of padding are 0: they add nothing to the state and, with gate 0, keep it. */
function toChunks(x: tf.Tensor, { B, T, H, N, C, slots }: Layout): tf.Tensor {
  const D = x.shape[3] as number;
  const whole = pad(x, 1, [0, N * C - T]).reshape([B * N, C, H, D]);
  return pad(tf.transpose(whole, [0, 2, 1, 3]), 2, [0, slots - C]).reshape([B * N * H, slots, D]);
}

/** The inverse of `toChunks`. */
function fromChunks(x: tf.Tensor, { B, T, H, N, C, slots }: Layout): tf.Tensor {
  const D = x.shape[2] as number;
  const rows = cutEnd(x.reshape([B * N, H, slots, D]), 2, C);
  return cutEnd(tf.transpose(rows, [0, 2, 1, 3]).reshape([B, N * C, H, D]), 1, T);
}

/**
 * Scores inside every chunk, A_ij = sum_d q_id k_jd exp(G_id - G_jd) for j <= i, by merging neighbouring blocks of 1, 2, 4, ...
 * rows until a chunk is whole. While it runs, `queries` hold q times the decay from their block's start, `keys` hold k times the
 * decay up to their block's end, and `gate` is the sum of gates over the block. A merge needs one product for the corner "rows of
 * the upper block, columns of the lower", and then stretches queries and keys over the other block. Every exponent is a sum of
 * gates: nothing overflows, nothing cancels.
 */
function scoreTree(q: tf.Tensor, k: tf.Tensor, g: tf.Tensor) {
  const [chunks, slots, K] = q.shape;
  const Kg = g.shape[2] as number;
  let gate = g;
  let decay = tf.exp(g);
  let scores: tf.Tensor = tf.sum(tf.mul(q, k), 2);
  let queries: tf.Tensor = tf.mul(q, decay);
  let keys = k;
  for (let size = 1; size < slots; size *= 2) {
    const pairs = (chunks * slots) / (2 * size);
    const block = (x: tf.Tensor, which: 0 | 1) =>
      tf.slice(x.reshape([pairs, 2, size * K]), [0, which, 0], [pairs, 1, size * K]).reshape([pairs, size, K]);
    const corner = tf.matMul(block(queries, 1), block(keys, 0), false, true);
    scores = merge(scores, corner, pairs, size);
    const [lower, upper] = tf.split(decay.reshape([pairs, 2, Kg]), 2, 1);
    const stretch = (x: tf.Tensor, by: tf.Tensor) =>
      tf.mul(x.reshape([pairs, 2, size, K]), by.reshape([pairs, 2, 1, Kg]));
    queries = stretch(queries, pad(lower, 1, [1, 0], 1));
    keys = stretch(keys, pad(upper, 1, [0, 1], 1));
    gate = tf.sum(gate.reshape([pairs, 2, Kg]), 1);
    decay = tf.exp(gate);
  }
  const rows = (x: tf.Tensor, width: number) => x.reshape([chunks, slots, width]);
  return { scores: rows(scores, slots), queries: rows(queries, K), keys: rows(keys, K), gate };
}

/** [[A_lower, 0], [corner, A_upper]] for every pair. */
function merge(blocks: tf.Tensor, corner: tf.Tensor, pairs: number, size: number): tf.Tensor {
  const diagonal = tf.mul(blocks.reshape([pairs, 2, size, 1, size]), tf.eye(2).reshape([1, 2, 1, 2, 1]));
  const placed = pad(pad(corner, 2, [0, size]), 1, [size, 0]);
  return tf.add(diagonal.reshape([pairs, 2 * size, 2 * size]), placed);
}

/**
 * The state before every chunk, and after the last: S_{n+1} = exp(gate_n) * S_n + write_n, with write [B, N, R, W], gate
 * [B, N, R, 1] and start [B, 1, R, W]. Pairs of chunks are merged into one until one is left, then the states are handed down:
 * log2(N) rounds of few large ops instead of N rounds of small ones.
 */
function scanStates(write: tf.Tensor, gate: tf.Tensor, start: tf.Tensor): { before: tf.Tensor; final: tf.Tensor } {
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

/** x with `before` and `after` rows of `value` along `axis`. */
function pad(x: tf.Tensor, axis: number, [before, after]: [number, number], value = 0): tf.Tensor {
  if (before + after === 0) return x;
  const paddings = x.shape.map((_, i): [number, number] => (i === axis ? [before, after] : [0, 0]));
  return tf.pad(x, paddings, value);
}

/** The first `count` rows of x along `axis`. */
function cutEnd(x: tf.Tensor, axis: number, count: number): tf.Tensor {
  if (x.shape[axis] === count) return x;
  const size = x.shape.map((n, i) => (i === axis ? count : n));
  return tf.slice(x, Array(size.length).fill(0), size);
}
