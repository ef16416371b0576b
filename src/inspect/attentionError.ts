/** How far sparse, low-rank and summed attention are from softmax attention at the same budget, over temperatures. */
import * as tf from '@tensorflow/tfjs';
import {
  flashAttention,
  orthogonalProjection,
  type ScatterbrainInputs,
  type ScatterbrainOptions,
  scatterbrain,
} from '../chunked/index.js';
import { Rng } from '../rng.js';

/** Entries of a row that are kept, plus twice the features: what every way may use. */
export const ERROR_BUDGET = 64;

export interface AttentionErrorOptions {
  /** Factors on q . k, of unit vectors; default 0.5, 1, 2, 3, 4, 6, 8. */
  temps?: readonly number[];
  /** Default 512; a multiple of 32. */
  tokens?: number;
  /** Default 32. */
  headDim?: number;
  /** Means are over so many draws of everything; default 8. */
  draws?: number;
  /** Default 0. */
  seed?: number;
  progress?: (kind: string, temp: number) => void;
}

/** Relative Frobenius errors of the normalised attention matrix, mean over the draws, for one kind of data and temperature. */
export interface AttentionErrors {
  kind: 'clusters' | 'AR(1)';
  temp: number;
  /** Mean entropy of the rows of softmax attention. */
  entropy: number;
  sparse: number;
  lowRank: number;
  sum: number;
  /** The sum whose exact pairs are those of a token's own cluster, as if the hash were perfect. */
  ownCluster?: number;
  /** Share of the pairs of one cluster that the hash of the sum finds. */
  recall?: number;
}

interface Data {
  q: tf.Tensor;
  k: tf.Tensor;
  /** Cluster of every token. */
  clusters?: Int32Array;
}

/**
 * Runs `scatterbrain` on the wasm backend. Clusters: tokens in random order from clusters of 16 around random directions; the sorted hash, 32 x 2 rounds alone
 * and 16 x 2 rounds with 16 features. AR(1): directions that wander (0.95); the window, 64 alone and 32 with 16 features. Features alone: 32.
 */
export function attentionErrorStudy(options: AttentionErrorOptions = {}): AttentionErrors[] {
  const { temps = [0.5, 1, 2, 3, 4, 6, 8], draws = 8, progress } = options;
  return (['clusters', 'AR(1)'] as const).flatMap((kind) =>
    temps.map((temp) => {
      progress?.(kind, temp);
      const all = Array.from({ length: draws }, (_, draw) => tf.tidy(() => errorsOf(kind, temp, draw, options)));
      const mean = (name: keyof (typeof all)[number]) => all.reduce((sum, one) => sum + (one[name] ?? 0), 0) / draws;
      const names = Object.keys(all[0]) as (keyof (typeof all)[number])[];
      const means = Object.fromEntries(names.map((name) => [name, mean(name)]));
      return { kind, temp, ...means } as unknown as AttentionErrors;
    }),
  );
}

type Errors = Omit<AttentionErrors, 'kind' | 'temp'>;

function errorsOf(
  kind: AttentionErrors['kind'],
  temp: number,
  draw: number,
  { tokens: T = 512, headDim: E = 32, seed = 0 }: AttentionErrorOptions,
): Errors {
  const rng = new Rng(seed).split(kind).split(draw);
  const { q, k, clusters } = kind === 'clusters' ? clusterData(T, E, rng) : wanderingData(T, E, rng);
  const v = tf.eye(T).reshape([1, T, 1, T]); // so that the outputs are the matrix itself
  const exact = flashAttention({ q, k, v }, { causal: false, scale: temp }).o;
  const hashSeed = rng.split('hash').uint32();
  const matrix = (nbFeatures: number, more: ScatterbrainOptions, inputs: Partial<ScatterbrainInputs> = {}) => {
    const projection = nbFeatures
      ? tf.tensor2d(orthogonalProjection({ headDim: E, nbFeatures, seed: rng.split('features').uint32() }), [
          nbFeatures / 2,
          E,
        ])
      : undefined;
    return scatterbrain({ q, k, v, projection, ...inputs }, { causal: false, softmaxTemp: temp, ...more }).o;
  };
  const error = (x: tf.Tensor) => tf.div(tf.norm(tf.sub(x, exact)), tf.norm(exact)).dataSync()[0];
  const support = (size: number): ScatterbrainOptions =>
    clusters ? { hash: { type: 'sorted', bucketSize: size / 2, rounds: 2, seed: hashSeed } } : { windowSize: size };
  const errors: Errors = {
    entropy: entropyOf(exact, T),
    sparse: error(matrix(0, { ...support(ERROR_BUDGET), mode: 'sparse-only' })),
    lowRank: error(matrix(ERROR_BUDGET / 2, { mode: 'low-rank-only' })),
    sum: error(matrix(ERROR_BUDGET / 4, support(ERROR_BUDGET / 2))),
  };
  if (!clusters) return errors;
  const buckets = tf.tensor(clusters, [1, T, 1, 1], 'int32');
  const given = { queryBuckets: buckets, keyBuckets: buckets };
  const found = matrix(0, { ...support(ERROR_BUDGET / 2), mode: 'sparse-only' });
  return {
    ...errors,
    ownCluster: error(matrix((ERROR_BUDGET - 16) / 2, {}, given)),
    recall: recallOf(found, clusters),
  };
}

/** Clusters of 16 around random directions, each token's query and key a little off it, in random order. */
function clusterData(T: number, E: number, rng: Rng): Data {
  const centres = directions(T / 16, E, rng.split('centres'));
  const clusters = Int32Array.from(rng.split('order').permutation(T), (i) => Math.floor(i / 16));
  const around = (name: string) => {
    const noise = rng.split(name).normalArray(T * E, 0.04 / Math.sqrt(E));
    return Float64Array.from(noise, (x, i) => centres[clusters[Math.floor(i / E)] * E + (i % E)] + x);
  };
  return { q: unitRows(around('q'), E), k: unitRows(around('k'), E), clusters };
}

/** x_t = 0.95 x_{t-1} + noise, query and key a little off its direction. */
function wanderingData(T: number, E: number, rng: Rng): Data {
  const steps = rng.split('steps').normalArray(T * E);
  const path = new Float64Array(T * E);
  for (let i = 0; i < T * E; i++) path[i] = i < E ? steps[i] : 0.95 * path[i - E] + Math.sqrt(1 - 0.95 ** 2) * steps[i];
  const near = (name: string) => {
    const noise = rng.split(name).normalArray(T * E, 0.1);
    return unitRows(
      path.map((x, i) => x + noise[i]),
      E,
    );
  };
  return { q: near('q'), k: near('k') };
}

function directions(n: number, E: number, rng: Rng): Float64Array {
  return unit(Float64Array.from(rng.normalArray(n * E)), E);
}

function unit(x: Float64Array, E: number): Float64Array {
  return x.map((value, i) => value / Math.hypot(...x.subarray(i - (i % E), i - (i % E) + E)));
}

const unitRows = (x: Float64Array, E: number): tf.Tensor =>
  tf.tensor(Float32Array.from(unit(x, E)), [1, x.length / E, 1, E], 'float32');

/** Mean over the rows of [1, T, 1, T]. */
function entropyOf(P: tf.Tensor, T: number): number {
  let sum = 0;
  for (const p of P.dataSync()) if (p > 0) sum -= p * Math.log(p);
  return sum / T;
}

function recallOf(found: tf.Tensor, clusters: Int32Array): number {
  const T = clusters.length;
  const weights = found.dataSync();
  let [hits, pairs] = [0, 0];
  for (let i = 0; i < T; i++)
    for (let j = 0; j < T; j++)
      if (clusters[i] === clusters[j]) {
        pairs++;
        if (weights[i * T + j] > 0) hits++;
      }
  return hits / pairs;
}
