/** Softmax attention in plain TensorFlow.js ops, differentiable on every backend: a tile of queries at a time, O(tile S) memory. */
import * as tf from '@tensorflow/tfjs';
import { recomputed } from '../recomputed.js';
import { factorProduct, spreadBand } from './factors.js';
import type { FlashAttentionOutput } from './index.js';
import type { AttentionInputs, AttentionSettings } from './terms.js';

/** Added to a hidden score: it swallows any score in float32, and its exponential is exactly 0. */
const HIDDEN = -1e30;
/** Queries in a tile. */
const TILE = 128;

/** Same contract as `flashAttention` with factors and a band (`AttentionInputs`), arguments already checked. */
export function plainFlashAttention(inputs: AttentionInputs, settings: AttentionSettings): FlashAttentionOutput {
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

/** What a tile is made from; those after `v` may be absent. */
const PARTS = ['q', 'k', 'v', 'bias', 'phiQ', 'phiK', 'band', 'hiddenKeys'] as const;
/** `hiddenKeys` [B, 1, 1, keys]: 0, or -1e30 for a masked key. A part as well, since the backward pass needs it when the mask is gone. */
type Parts = Omit<AttentionInputs, 'keyMask'> & { hiddenKeys?: tf.Tensor };

/** [B, tile, H, V + 1]: o, and lse beside it. Where there are several tiles the backward pass makes the scores again. */
function tileOutputs(inputs: AttentionInputs, settings: AttentionSettings, start: number, end: number): tf.Tensor {
  const [T, S] = [inputs.q.shape[1] as number, inputs.k.shape[1] as number];
  const keys = settings.causal ? S - T + end : S; // those that the tile may see
  const part = (x: tf.Tensor, at: number, size: number) =>
    size === x.shape[1] ? x : tf.slice(x, [0, at, 0, 0], [-1, size, -1, -1]);
  const { bias, phiQ, phiK, band, keyMask } = inputs;
  const parts: Parts = {
    ...{ q: part(inputs.q, start, end - start), k: part(inputs.k, 0, keys), v: part(inputs.v, 0, keys) },
    bias: bias && tf.slice(bias, [0, 0, start, 0], [-1, -1, end - start, keys]),
    phiQ: phiQ && part(phiQ, start, end - start),
    phiK: phiK && part(phiK, 0, keys),
    band: band && (band.shape[1] === 1 ? band : part(band, start, end - start)),
    hiddenKeys: keyMask && hiddenKeys(keyMask, keys),
  };
  const given = PARTS.filter((name) => parts[name]);
  const run = (...xs: tf.Tensor[]) =>
    attend(
      Object.fromEntries(given.map((name, i) => [name, xs[i]])) as unknown as Parts,
      ...[settings.scale, S - T + start],
      hiddenPairs(start, end, keys, T, S, settings),
    );
  const xs = given.map((name) => parts[name] as tf.Tensor);
  return end - start === T ? run(...xs) : recomputed(run, xs);
}

/**
 * All queries at once, the first of which stands at `position`. The R = H / G heads that share a key head are rows of one product. `hidden`
 * [1, 1, 1, T, S].
 */
function attend(
  { q, k, v, ...terms }: Parts,
  scale: number,
  position: number,
  hidden: tf.Tensor | undefined,
): tf.Tensor {
  const [B, T, H, K] = q.shape as [number, number, number, number];
  const [, S, G, V] = v.shape as [number, number, number, number];
  const R = H / G;
  const queries = tf.transpose(tf.mul(q, scale).reshape([B, T, G, R, K]), [0, 2, 3, 1, 4]).reshape([B * G, R * T, K]);
  const [keys, values] = [k, v].map((x) => tf.transpose(x, [0, 2, 1, 3]).reshape([B * G, S, -1]));
  const products = tf.matMul(queries, keys, false, true).reshape([B, G, R, T, S]);
  const biases = addends(terms, T, S, position).map((bias) => headsApart(bias, G, R));
  const scores = [...biases, ...(hidden ? [hidden] : [])].reduce((sum, x) => tf.add(sum, x), products as tf.Tensor);
  const weights = tf.mul(tf.exp(belowMax(scores)), seen(scores)); // [B, G, R, T, S], at most 1
  const sums = tf.sum(weights, -1, true);
  const blind = blindOf(sums);
  const outputs = tf.matMul(weights.reshape([B * G, R * T, S]), values).reshape([B, G, R, T, V]);
  const o = tf.div(outputs, tf.add(sums, blind));
  const lse = tf.add(tf.add(rowMax(scores), tf.log(tf.add(sums, blind))), lowest(blind));
  return tf.transpose(tf.concat([o, lse], 4), [0, 3, 1, 2, 4]).reshape([B, T, H, V + 1]);
}

/** What is added to the scores, each [B or 1, H or 1, T or 1, S]. */
function addends(
  { bias, phiQ, phiK, band, hiddenKeys }: Omit<Parts, 'q' | 'k' | 'v'>,
  T: number,
  S: number,
  position: number,
): tf.Tensor[] {
  return [
    ...(bias ? [aboveHidden(bias)] : []),
    ...(phiQ && phiK ? [factorProduct(phiQ, phiK)] : []),
    ...(band ? [spreadBand(band, T, S, position)] : []),
    ...(hiddenKeys ? [hiddenKeys] : []),
  ];
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

/** [1, 1, 1, rows, keys] of 0 where the query sees the key and -1e30 where it does not; undefined when all see all. */
function hiddenPairs(
  start: number,
  end: number,
  keys: number,
  T: number,
  S: number,
  { causal, window, cuSeqlens }: AttentionSettings,
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
  if (all.length === 0) return undefined;
  return tf.mul(
    tf.cast(
      all.reduce((a, b) => tf.logicalOr(a, b)),
      'float32',
    ),
    HIDDEN,
  );
}

/** bool [B, S] -> [B, 1, 1, keys]. */
function hiddenKeys(keyMask: tf.Tensor, keys: number): tf.Tensor {
  const masked = tf.logicalNot(tf.slice(keyMask, [0, 0], [-1, keys]));
  return tf.mul(tf.cast(masked, 'float32'), HIDDEN).reshape([-1, 1, 1, keys]);
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
