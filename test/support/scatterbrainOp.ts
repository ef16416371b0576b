/** Scatterbrain for the properties of `opProperties`: supports, modes and temperatures of all kinds, with their oracle. */
import * as tf from '@tensorflow/tfjs';
import fc from 'fast-check';
import {
  orthogonalProjection,
  type RotationHash,
  type ScatterbrainInputs,
  type ScatterbrainOptions,
  type ScatterbrainState,
  scatterbrain,
} from '../../src/chunked/index.js';
import { hashRotations } from '../../src/chunked/scatterbrain/projection.js';
import * as oracle from '../oracle/scatterbrain.js';
import { sequencesOf } from '../oracle/sequences.js';
import { type Composition, type MixingOp, type Sizes, type Tensors, timeSlice } from './opProperties.js';
import { values } from './tensors.js';

export interface Variant {
  causal: boolean;
  /** Rows of the projection. */
  r: number;
  windowSize?: number;
  hash?: RotationHash;
  mode: oracle.Mode;
  softmaxTemp?: number;
}

export const anyVariant: fc.Arbitrary<Variant> = fc.record({
  causal: fc.boolean(),
  r: fc.integer({ min: 1, max: 11 }),
  windowSize: fc.option(fc.integer({ min: 1, max: 100 }), { nil: undefined }),
  hash: fc.option(
    fc.record({
      type: fc.constant('rotation' as const),
      numBuckets: fc.constantFrom(2, 4, 8),
      bucketSize: fc.integer({ min: 1, max: 9 }),
      rounds: fc.integer({ min: 1, max: 3 }),
      seed: fc.nat({ max: 99 }),
    }),
    { nil: undefined },
  ),
  mode: fc.constantFrom('sum' as const, 'sum' as const, 'sparse-only' as const, 'low-rank-only' as const),
  softmaxTemp: fc.constantFrom(undefined, 0.1, 0.5),
});

/** The op of a variant. `state`: the low-rank state after the last token is an output, where there is one. */
export function scatterbrainOp({ r, ...variant }: Variant, { state = false } = {}): MixingOp {
  const { causal, mode, windowSize, softmaxTemp } = variant;
  const keeps = state && causal && mode !== 'sparse-only';
  const kept = mode === 'low-rank-only' ? undefined : windowSize;
  return {
    tokens: ({ B, T, H, K, V }) => ({ q: [B, T, H, K], k: [B, T, H, K], v: [B, T, H, V] }),
    states: ({ H, V }, N) => {
      if (!keeps) return {} as ReturnType<MixingOp['states']>;
      return {
        lowRank: { shape: [N, H, 2 * r, V], final: 'lowRank' },
        normalizer: { shape: [N, H, 2 * r], final: 'normalizer' },
      };
    },
    outputs: ({ B, T, H, V }) => ({ o: [B, T, H, V] }),
    run: (inputs, options) => {
      const { o, finalState } = run({ r, ...variant }, inputs, options as ScatterbrainOptions);
      const { lowRank, normalizer, ...rest } = finalState ?? ({} as ScatterbrainState);
      if (keeps) return { o, lowRank: lowRank as tf.Tensor, normalizer: normalizer as tf.Tensor, ...noExponent(rest) };
      tf.dispose(finalState ?? {});
      return { o };
    },
    oracle: (inputs, { B, T, H, K, V }, { cuSeqlens }, { o, lowRank, normalizer }) => {
      const projection = projectionOf(K, r);
      const dims = { B, T, S: T, H, E: K, V, r };
      const support = supportOf(variant, inputs.q, inputs.k, { B, T, H, K, V }, cuSeqlens);
      const options = { support, causal, mode, softmaxTemp, cuSeqlens, windowSize: kept };
      const upstream = { dO: o, dLowRank: lowRank, dNormalizer: normalizer };
      return {
        ...oracle.scatterbrainOracle(
          { ...(inputs as never as oracle.ScatterbrainOracleInputs), projection },
          dims,
          options,
          upstream,
        ),
        attention: [],
      };
    },
  };
}

/** What the properties do not look at is disposed of. */
function noExponent(rest: Partial<ScatterbrainState>): Tensors {
  tf.dispose(rest as Tensors);
  return {};
}

const projectionOf = (E: number, r: number) => orthogonalProjection({ headDim: E, nbFeatures: 2 * r, seed: 3 });

/** The op itself on q, k, v. */
export function run(
  { r, ...variant }: Variant,
  { q, k, v }: Tensors,
  options: ScatterbrainOptions,
  initialState?: ScatterbrainState,
) {
  const E = q.shape[3] as number;
  const projection = tf.tensor2d(projectionOf(E, r), [r, E]);
  const inputs: ScatterbrainInputs = { q, k, v, projection, initialState };
  const result = scatterbrain(inputs, { ...variant, ...options });
  projection.dispose();
  return result;
}

/** Whether a pair is on the support, in the words of the oracle. */
export function supportOf(
  { causal, windowSize, hash }: Omit<Variant, 'r'>,
  q: ArrayLike<number>,
  k: ArrayLike<number>,
  { B, T, H, K: E }: Sizes,
  cuSeqlens?: ArrayLike<number>,
): oracle.Support {
  const sequences = sequencesOf(B, T, cuSeqlens);
  const { rounds = 1, numBuckets = 16, bucketSize: size, seed = 0 } = hash ?? { bucketSize: 1 };
  const rotations = hashRotations(E, rounds, numBuckets, seed);
  const place = { E, rounds, half: numBuckets / 2 };
  const cache = new Map<string, boolean[]>();
  /** [count, count]: whether a pair is in one bucket in a round of a sequence and head. */
  const pairs = (n: number, h: number) => {
    const [start, count] = sequences[n];
    const of = (x: ArrayLike<number>, round: number) =>
      Array.from({ length: count }, (_, t) =>
        oracle.rotationBucket(x, ((start + t) * H + h) * E, rotations, { ...place, round }),
      );
    const found = new Array<boolean>(count * count).fill(false);
    for (let round = 0; round < rounds; round++) {
      const [queries, keys] = [of(q, round), of(k, round)];
      for (let i = 0; i < count; i++)
        for (let j = 0; j < count; j++)
          if (queries[i] === keys[j] && oracle.inBucket(i, j, queries, keys, { size, causal }))
            found[i * count + j] = true;
    }
    return found;
  };
  return (n, h, i, j) => {
    if (windowSize && oracle.inWindow(i, j, windowSize, causal)) return true;
    if (!hash) return false;
    const key = `${n} ${h}`;
    if (!cache.has(key)) cache.set(key, pairs(n, h));
    return (cache.get(key) as boolean[])[i * sequences[n][1] + j];
  };
}

/** The op over the pieces between `cuts`, each from the state the one before left. */
export function inPieces(variant: Variant, T: number, cuts: number[], options: ScatterbrainOptions): Composition {
  const ends = [...new Set([...cuts.filter((t) => t > 0 && t < T), T])].sort((a, b) => a - b);
  return (inputs) => {
    let state: ScatterbrainState | undefined;
    const outputs = ends.map((end, n) => {
      const piece = Object.fromEntries(
        Object.entries(inputs).map(([name, x]) => [name, timeSlice(x, ends[n - 1] ?? 0, end)]),
      );
      const { o, finalState } = run(variant, piece, options, state);
      state = finalState;
      return o;
    });
    return { o: tf.concat(outputs, 1), ...(state as Tensors) };
  };
}

/** Bytes of all tensors of a state. */
export const stateBytes = (state: ScatterbrainState): number =>
  Object.values(state as Tensors).reduce((sum, x) => sum + 4 * values(x).length, 0);
