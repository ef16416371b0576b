/** Softmax attention in plain TensorFlow.js ops, differentiable on every backend: a tile of queries at a time, O(tile S) memory. */
import * as tf from '@tensorflow/tfjs';
import { recomputed } from '../recomputed.js';
import type { AttentionSettings, FlashAttentionInputs, FlashAttentionOutput } from './index.js';

/** Added to a hidden score: it swallows any score in float32, and its exponential is exactly 0. */
const HIDDEN = -1e30;
/** Queries in a tile. */
const TILE = 128;

/** Same contract as `flashAttention`, arguments already checked. */
export function plainFlashAttention(inputs: FlashAttentionInputs, settings: AttentionSettings): FlashAttentionOutput {
  const { q, v } = inputs;
  const T = q.shape[1] as number;
  const V = v.shape[3] as number;
  return tf.tidy(() => {
    const tiles = Array.from({ length: Math.ceil(T / TILE) }, (_, n) =>
      tileOutputs(inputs, settings, n * TILE, Math.min(T, (n + 1) * TILE)),
    );
    const both = tiles.length === 1 ? tiles[0] : tf.concat(tiles, 1);
    const [o, lse] = tf.split(both, [V, 1], 3);
    return { o, lse: tf.squeeze(lse, [3]) };
  });
}

/** [B, tile, H, V + 1]: o, and lse beside it. Where there are several tiles the backward pass makes the scores again. */
function tileOutputs(inputs: FlashAttentionInputs, settings: AttentionSettings, start: number, end: number): tf.Tensor {
  const [T, S] = [inputs.q.shape[1] as number, inputs.k.shape[1] as number];
  const keys = settings.causal ? S - T + end : S; // those that the tile may see
  const part = (x: tf.Tensor, at: number, size: number) =>
    size === x.shape[1] ? x : tf.slice(x, [0, at, 0, 0], [-1, size, -1, -1]);
  const [q, k, v] = [part(inputs.q, start, end - start), part(inputs.k, 0, keys), part(inputs.v, 0, keys)];
  const bias = inputs.bias && tf.slice(inputs.bias, [0, 0, start, 0], [-1, -1, end - start, keys]);
  const run = (q: tf.Tensor, k: tf.Tensor, v: tf.Tensor, bias?: tf.Tensor) =>
    attend({ q, k, v, bias }, settings.scale, hiddenPairs(start, end, keys, T, S, settings, inputs.keyMask));
  if (end - start === T) return run(q, k, v, bias);
  return bias ? recomputed(run, [q, k, v, bias]) : recomputed(run, [q, k, v]);
}

/** All queries at once. The R = H / G heads that share a key head are rows of one product. `hidden` [B or 1, 1, 1, T, S]. */
function attend({ q, k, v, bias }: FlashAttentionInputs, scale: number, hidden: tf.Tensor | undefined): tf.Tensor {
  const [B, T, H, K] = q.shape as [number, number, number, number];
  const [, S, G, V] = v.shape as [number, number, number, number];
  const R = H / G;
  const queries = tf.transpose(tf.mul(q, scale).reshape([B, T, G, R, K]), [0, 2, 3, 1, 4]).reshape([B * G, R * T, K]);
  const [keys, values] = [k, v].map((x) => tf.transpose(x, [0, 2, 1, 3]).reshape([B * G, S, -1]));
  const products = tf.matMul(queries, keys, false, true).reshape([B, G, R, T, S]);
  const biased = bias ? tf.add(products, aboveHidden(headsApart(bias, G, R))) : products;
  const scores = hidden ? tf.add(biased, hidden) : biased;
  const weights = tf.mul(tf.exp(belowMax(scores)), seen(scores)); // [B, G, R, T, S], at most 1
  const sums = tf.sum(weights, -1, true);
  const blind = blindOf(sums);
  const outputs = tf.matMul(weights.reshape([B * G, R * T, S]), values).reshape([B, G, R, T, V]);
  const o = tf.div(outputs, tf.add(sums, blind));
  const lse = tf.add(tf.add(rowMax(scores), tf.log(tf.add(sums, blind))), lowest(blind));
  return tf.transpose(tf.concat([o, lse], 4), [0, 3, 1, 2, 4]).reshape([B, T, H, V + 1]);
}

/** [b, h, T, S] of 1 or all heads as [b, G or 1, R or 1, T, S]. */
function headsApart(bias: tf.Tensor, G: number, R: number): tf.Tensor {
  const [b, h, T, S] = bias.shape as [number, number, number, number];
  return bias.reshape([b, h === 1 ? 1 : G, h === 1 ? 1 : R, T, S]);
}

/** -Infinity becomes the number of a hidden score, so that no difference is Infinity - Infinity. */
const aboveHidden = (bias: tf.Tensor) => tf.maximum(bias, HIDDEN);

/** f(x) as a constant to the gradient. */
const constant = (f: (x: tf.Tensor) => tf.Tensor) =>
  tf.customGrad((x) => ({ value: f(x as tf.Tensor), gradFunc: () => tf.zeros((x as tf.Tensor).shape) }));

/** 1 where a pair is seen. A query that sees no key has only hidden scores, whose differences from the largest are no measure. */
const seen = constant((scores) => tf.cast(tf.greater(scores, HIDDEN / 2), 'float32'));

/** 1 for a query without a key. */
const blindOf = constant((sums) => tf.cast(tf.equal(sums, 0), 'float32'));

/** -Infinity where `blind` is 1, else 0; by rows of one number, since WebGPU's `where` knows no rank 5. */
const lowest = constant((blind) => {
  const rows = blind.flatten();
  const hidden = tf.fill([rows.size], Number.NEGATIVE_INFINITY);
  return tf.where(tf.cast(rows, 'bool'), hidden, tf.zerosLike(rows)).reshape(blind.shape);
});

/** The largest score of every row [..., 1]: o and lse do not depend on what the scores are shifted by. */
const rowMax = constant((scores) => tf.max(scores, -1, true));

/** [B or 1, 1, 1, rows, keys] of 0 where the query sees the key and -1e30 where it does not; undefined when all see all. */
function hiddenPairs(
  start: number,
  end: number,
  keys: number,
  T: number,
  S: number,
  { causal, window, cuSeqlens }: AttentionSettings,
  keyMask: tf.Tensor | undefined,
): tf.Tensor | undefined {
  const key = tf.range(0, keys, 1).reshape([1, keys]);
  const query = tf.range(S - T + start, S - T + end, 1).reshape([end - start, 1]);
  const hidden: tf.Tensor[] = [];
  if (causal) hidden.push(tf.greater(key, query));
  if (window !== undefined) hidden.push(tf.lessEqual(key, tf.sub(query, window)));
  if (cuSeqlens) {
    const documents = documentOfToken(cuSeqlens);
    const of = (from: number, to: number) => tf.tensor1d(documents.subarray(from, to));
    hidden.push(tf.notEqual(of(0, keys).reshape([1, keys]), of(start, end).reshape([end - start, 1])));
  }
  const all = hidden.map((pairs) => pairs.reshape([1, 1, 1, end - start, keys]));
  if (keyMask) all.push(tf.logicalNot(tf.slice(keyMask, [0, 0], [-1, keys])).reshape([-1, 1, 1, 1, keys]));
  if (all.length === 0) return undefined;
  return tf.mul(
    tf.cast(
      all.reduce((a, b) => tf.logicalOr(a, b)),
      'float32',
    ),
    HIDDEN,
  );
}

function documentOfToken(cuSeqlens: Int32Array): Float32Array {
  const documents = new Float32Array(cuSeqlens[cuSeqlens.length - 1]);
  for (let n = 1; n < cuSeqlens.length; n++) documents.fill(n, cuSeqlens[n - 1], cuSeqlens[n]);
  return documents;
}

/** scores - rowMax(scores), in one op: through a subtraction of `rowMax` zeros as large as the scores would be added to the gradient. */
const belowMax = tf.customGrad((scores) => ({
  value: tf.sub(scores as tf.Tensor, tf.max(scores as tf.Tensor, -1, true)),
  gradFunc: (dy: tf.Tensor) => dy,
}));
