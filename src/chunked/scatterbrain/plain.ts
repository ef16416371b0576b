/**
 * Scatterbrain attention in plain TensorFlow.js ops, differentiable on every backend: all pairs, a tile of queries at a time. Quadratic in time, memory
 * O(tile S). Pairs off the support are summed as they are, nothing is subtracted but keys of the past in buckets.
 */
import * as tf from '@tensorflow/tfjs';
import { detached } from '../detached.js';
import { recomputed } from '../recomputed.js';
import type { CoreInputs, CoreOutput, CoreSettings } from './core.js';
import type { Round } from './support.js';

/** Added to a hidden exponent. */
const HIDDEN = -1e30;
/** Queries in a tile. */
const TILE = 128;

/** Arguments already checked; see `core.ts`. */
export function plainScatterbrain(
  inputs: CoreInputs,
  settings: CoreSettings,
  rounds: readonly (readonly Round[])[],
): CoreOutput {
  return tf.tidy(() => {
    const [B, T, H] = inputs.q.shape as [number, number, number];
    const V = inputs.v.shape[3] as number;
    const x = byHead(inputs);
    const { q, projection, lowRank, normalizer, exponent } = x;
    const state = lowRank ? { lowRank, normalizer, exponent } : {};
    const given = { k: x.k, v: x.v, ...(projection && { projection }), ...state } as Record<string, tf.Tensor>;
    const names = Object.keys(given);
    const tiles = Array.from({ length: Math.ceil(T / TILE) }, (_, n) => {
      const [start, end] = [n * TILE, Math.min(T, (n + 1) * TILE)];
      const run = (q: tf.Tensor, ...rest: tf.Tensor[]) => {
        const named = Object.fromEntries(names.map((name, i) => [name, rest[i]])) as unknown as ByHead;
        return attend({ ...named, q }, settings, pairsOf(inputs, settings, rounds, start, end));
      };
      if (T <= TILE) return run(q, ...Object.values(given));
      return recomputed(run, [tf.slice(q, [0, start, 0], [-1, end - start, -1]), ...Object.values(given)]);
    });
    const o = tf.transpose((tiles.length === 1 ? tiles[0] : tf.concat(tiles, 1)).reshape([B, H, T, V]), [0, 2, 1, 3]);
    return { o, ...(settings.outputFinalState && x.projection && stateAfter(x, settings, [B, H])) };
  });
}

/** q, k, v as [B H, ., .], the state as [B H, m, V], [B H, m, 1] and [B H, 1, 1]. */
type ByHead = CoreInputs;

function byHead({ q, k, v, projection, lowRank, normalizer, exponent }: CoreInputs): ByHead {
  const merged = (x: tf.Tensor) => {
    const [B, L, H, D] = x.shape as [number, number, number, number];
    return tf.transpose(x, [0, 2, 1, 3]).reshape([B * H, L, D]);
  };
  const rows = q.shape[0] * (q.shape[2] as number);
  return {
    ...{ q: merged(q), k: merged(k), v: merged(v), projection },
    ...(lowRank && {
      lowRank: lowRank.reshape([rows, -1, v.shape[3] as number]),
      normalizer: (normalizer as tf.Tensor).reshape([rows, -1, 1]),
      exponent: scaleOf(normalizer as tf.Tensor, exponent as tf.Tensor),
    }),
  };
}

/** Scale of a state; where it is empty, one so low that nothing of it counts. */
function scaleOf(normalizer: tf.Tensor, exponent: tf.Tensor): tf.Tensor {
  const rows = exponent.size;
  const any = tf.max(tf.abs(detached(normalizer).reshape([rows, -1])), 1);
  const scales = tf.cast(detached(exponent), 'float32').reshape([rows]);
  return tf.where(tf.greater(any, 0), scales, tf.fill([rows], HIDDEN)).reshape([rows, 1, 1]);
}

/** f(x) as a constant to the gradient. */
const constant = (f: (x: tf.Tensor) => tf.Tensor) =>
  tf.customGrad((x) => ({ value: f(x as tf.Tensor), gradFunc: () => tf.zeros((x as tf.Tensor).shape) }));

const rowMax = constant((x) => tf.max(x, 2, true));
/** At least 0; the gradient is that of x: what lies below is rounding. */
const atLeast0 = tf.customGrad((x) => ({ value: tf.relu(x as tf.Tensor), gradFunc: (dy: tf.Tensor) => dy }));
const isZero = constant((x) => tf.cast(tf.equal(x, 0), 'float32'));

/** log phi of rows [N, L, E]: [N, L, m]. */
function logFeatures(x: tf.Tensor, projection: tf.Tensor, softmaxTemp: number): tf.Tensor {
  const [N, L, E] = x.shape as [number, number, number];
  const r = projection.shape[0];
  const y = tf.mul(tf.matMul(x.reshape([N * L, E]), projection as tf.Tensor2D, false, true), Math.sqrt(softmaxTemp));
  const square = tf.mul(tf.sum(tf.square(x), 2, true), softmaxTemp / 2);
  const both = tf.concat([y, tf.neg(y)], 1).reshape([N, L, 2 * r]);
  return tf.sub(both, tf.add(square, Math.log(2 * r) / 2));
}

/** Features and the logarithm of their scale: f [N, L, m], at most 1, and a [N, L, 1], a constant to the gradient. */
function features(x: tf.Tensor, projection: tf.Tensor, softmaxTemp: number): { f: tf.Tensor; a: tf.Tensor } {
  const log = logFeatures(x, projection, softmaxTemp);
  const a = rowMax(log);
  return { f: tf.exp(tf.sub(log, a)), a };
}

/** Pairs of a tile [B H, tile, S]: 1 where exact; 1 or -1 where a product of features is added or taken away. */
interface Pairs {
  exact: tf.Tensor;
  through: tf.Tensor;
}

/** A tile of queries [B H, tile, V]. */
function attend(x: ByHead, { softmaxTemp }: CoreSettings, { exact, through }: Pairs): tf.Tensor {
  const { q, k, v, projection, lowRank, normalizer, exponent } = x;
  const scores = tf.add(tf.matMul(tf.mul(q, softmaxTemp), k, false, true), hidden(exact));
  if (!projection) {
    const weights = tf.mul(tf.exp(tf.sub(scores, rowMax(scores))), exact);
    return over(tf.matMul(weights, v), tf.sum(weights, 2, true));
  }
  const [Q, K] = [q, k].map((rows) => features(rows, projection, softmaxTemp));
  const exponents = tf.add(tf.add(Q.a, tf.transpose(K.a, [0, 2, 1])), hidden(through));
  const before = exponent && tf.add(Q.a, exponent);
  let c = tf.maximum(rowMax(scores), rowMax(exponents));
  if (before) c = tf.maximum(c, before);
  const near = tf.mul(tf.exp(tf.sub(scores, c)), exact);
  const far = tf.mul(tf.mul(tf.matMul(Q.f, K.f, false, true), through), tf.exp(tf.sub(exponents, c)));
  const values = tf.matMul(tf.add(near, far), v);
  const sums = [near, far].map((w) => tf.sum(w, 2, true));
  if (!before || !lowRank || !normalizer) return over(values, tf.add(sums[0], atLeast0(sums[1])));
  const factor = tf.exp(tf.sub(before, c));
  const old = [lowRank, normalizer].map((state) => tf.mul(tf.matMul(Q.f, state), factor));
  return over(tf.add(values, old[0]), tf.add(sums[0], atLeast0(tf.add(sums[1], old[1]))));
}

const hidden = (mask: tf.Tensor): tf.Tensor => tf.mul(tf.cast(tf.equal(mask, 0), 'float32'), HIDDEN);

/** values / sum, 0 where there is no weight. */
const over = (values: tf.Tensor, sum: tf.Tensor): tf.Tensor => tf.div(values, tf.add(sum, isZero(sum)));

/** The low-rank state after the call. */
function stateAfter(x: ByHead, settings: CoreSettings, [B, H]: [number, number]): Omit<CoreOutput, 'o'> {
  const { q, k, v, projection, lowRank, normalizer, exponent } = x;
  const { windowSize, past, slots, softmaxTemp } = settings;
  const [V, m] = [v.shape[2] as number, 2 * (projection as tf.Tensor).shape[0]];
  const end = past + (q.shape[1] as number) - (windowSize ? windowSize - 1 : 0);
  const shapes = { lowRank: [B, H, m, V], normalizer: [B, H, m], exponent: [B, H] };
  const behind = end > 0 ? [k, v].map((rows) => tf.slice(rows, [0, slots, 0], [-1, end, -1])) : undefined;
  const log = behind && logFeatures(behind[0], projection as tf.Tensor, softmaxTemp);
  const none = tf.fill([B * H, 1, 1], HIDDEN);
  const largest = tf.maximum(exponent ?? none, log ? tf.ceil(tf.max(detached(log), [1, 2], true)) : none);
  const scale = tf.where(tf.greater(largest, HIDDEN / 2), largest, tf.zerosLike(largest)); // a state of nothing
  const parts = [lowRank, normalizer].map((state) =>
    state && exponent ? tf.mul(state, tf.exp(tf.sub(exponent, scale))) : undefined,
  );
  if (behind && log) {
    const f = tf.exp(tf.sub(log, scale));
    const ones = tf.ones([B * H, end, 1]);
    [behind[1], ones].forEach((rows, i) => {
      const sum = tf.matMul(f, rows, true);
      parts[i] = parts[i] ? tf.add(parts[i] as tf.Tensor, sum) : sum;
    });
  }
  return {
    lowRank: (parts[0] ?? tf.zeros([B * H, m, V])).reshape(shapes.lowRank),
    normalizer: (parts[1] ?? tf.zeros([B * H, m])).reshape(shapes.normalizer),
    exponent: tf.cast(scale, 'int32').reshape(shapes.exponent),
  };
}

// ---- Which pairs ----------------------------------------------------------------------------------------------------------------

function pairsOf(
  { q, k }: CoreInputs,
  settings: CoreSettings,
  rounds: readonly (readonly Round[])[],
  start: number,
  end: number,
): Pairs {
  const [B, T, H] = q.shape as [number, number, number];
  const S = k.shape[1] as number;
  const rows = end - start;
  const [exact, through] = [0, 1].map(() => new Float32Array(B * H * rows * S));
  const { cuSeqlens } = settings;
  const documents = cuSeqlens ? cuSeqlens.length - 1 : 1;
  for (let b = 0; b < B; b++)
    for (let n = 0; n < documents; n++) {
      const [first, last] = cuSeqlens ? [cuSeqlens[n], cuSeqlens[n + 1]] : [0, T];
      const keys = cuSeqlens ? last - first : S;
      for (let h = 0; h < H; h++)
        for (let t = Math.max(first, start); t < Math.min(last, end); t++) {
          const at = ((b * H + h) * rows + t - start) * S + (cuSeqlens ? first : 0);
          const part = (x: Float32Array) => x.subarray(at, at + keys);
          pairsOfQuery(part(exact), part(through), t - first, settings, rounds[(b * documents + n) * H + h] ?? []);
        }
    }
  const tensor = (x: Float32Array) => tf.tensor3d(x, [B * H, rows, S]);
  return { exact: tensor(exact), through: tensor(through) };
}

/** Rows of one query over the keys of its sequence. */
function pairsOfQuery(
  exact: Float32Array,
  through: Float32Array,
  t: number,
  { causal, windowSize, slots, past }: CoreSettings,
  rounds: readonly Round[],
): void {
  const now = past + t;
  if (causal) {
    for (let time = 0; time <= now; time++)
      if (time > now - windowSize) exact[slots + time] = 1;
      else through[slots + time] = 1;
  } else through.fill(1);
  const found = new Set<number>();
  for (const { low, high, rows, times } of rounds)
    for (let place = low[t]; place < high[t]; place++) {
      const [row, time] = [rows[place], times[place]];
      if (found.has(time) || (windowSize > 0 && time > now - windowSize)) continue;
      found.add(time);
      exact[row] = 1;
      through[row] = row < slots ? -1 : 0;
    }
}
