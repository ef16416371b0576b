/** The rounds of a call: buckets given, or hashed from q and k as they are now. */
import * as tf from '@tensorflow/tfjs';
import { fusedBuckets } from './fused.js';
import { type Rows, rotationBuckets, sortedBuckets } from './hash.js';
import type { RotationHash, ScatterbrainInputs, ScatterbrainOptions, SortedHash } from './inputs.js';
import { hashDirections, hashRotations } from './projection.js';
import { bucketRound, type Round, type RoundKeys, windowRound } from './support.js';

/** Keys of the past: `slots` of them in buckets, `past` in the window, after `position` tokens. */
interface Past {
  slots: number;
  past: number;
  position: number;
}

type Options = ScatterbrainOptions & { windowSize: number; causal: boolean; fused: boolean };

/** Buckets of the tokens `first` .. `first` + `count` - 1 of row b, head h, in a round. */
type BucketsOf = (place: Place, count: number, round: number) => Int32Array;
interface Place {
  b: number;
  h: number;
  first: number;
}

/** Rounds of every sequence and head, sequence by sequence. The window of a call that is not causal is the first. */
export function roundsOf(inputs: ScatterbrainInputs, options: Options, past: Past): Round[][] {
  const { hash, windowSize, causal, cuSeqlens } = options;
  const [B, T, H] = inputs.q.shape as [number, number, number];
  const S = inputs.k.shape[1] as number;
  const apart = windowSize > 0 && !causal;
  if (!hash && !inputs.queryBuckets && !apart) return [];
  const buckets = bucketsOf(inputs, hash, options.fused);
  const size = hash?.type === 'rotation' ? hash.bucketSize : undefined;
  const documents = cuSeqlens
    ? Array.from(cuSeqlens.subarray(1), (end, n) => [cuSeqlens[n], end - cuSeqlens[n]])
    : [[0, T]];
  return Array.from({ length: B }, (_, b) => b).flatMap((b) =>
    documents.flatMap(([first, n]) =>
      Array.from({ length: H }, (_, h) => {
        const place = { b, h, first };
        const keys = cuSeqlens ? n : S;
        const timeOf = causal ? (t: number) => past.past + t : (t: number) => Math.floor((t * keys) / n);
        const hashed = Array.from({ length: buckets.rounds }, (_, round) => {
          const [q, k] = buckets.of(place, [n, keys], round);
          return bucketRound(q, keysOf(inputs, k, { b, h, round }, options, past), { size, causal, timeOf });
        });
        return apart ? [windowRound(n, windowSize), ...hashed] : hashed;
      }),
    ),
  );
}

interface Buckets {
  rounds: number;
  of(place: Place, counts: [queries: number, keys: number], round: number): [q: Int32Array, k: Int32Array];
}

function bucketsOf(inputs: ScatterbrainInputs, hash: ScatterbrainOptions['hash'], fused: boolean): Buckets {
  if (hash?.type === 'sorted') return sorted(inputs, hash);
  const given = hash ? rotated(inputs, hash, fused) : inputs.queryBuckets ? read(inputs) : undefined;
  if (!given) return { rounds: 0, of: () => [new Int32Array(0), new Int32Array(0)] };
  return {
    rounds: given.rounds,
    of: (place, [queries, keys], round) => [given.q(place, queries, round), given.k(place, keys, round)],
  };
}

/** The hash is a function of numbers that must be at hand; webgpu gives them back only later. */
function numbersOf(x: tf.Tensor): ArrayLike<number> {
  if (tf.getBackend() === 'webgpu')
    throw new Error(
      'scatterbrain: hashing reads q and k at the call, which webgpu cannot; use windowSize without a hash there, or another backend',
    );
  return x.dataSync();
}

/** One column of buckets [B, L, H, rounds]. */
function column(buckets: ArrayLike<number>, L: number, H: number, rounds: number): BucketsOf {
  return ({ b, h, first }, count, round) =>
    Int32Array.from({ length: count }, (_, i) => buckets[((b * L + first + i) * H + h) * rounds + round]);
}

function read({ k, queryBuckets, keyBuckets }: ScatterbrainInputs): { rounds: number; q: BucketsOf; k: BucketsOf } {
  const [, T, H, rounds] = (queryBuckets as tf.Tensor).shape as [number, number, number, number];
  const of = (x: tf.Tensor, L: number) => {
    const values = numbersOf(x);
    for (let i = 0; i < values.length; i++)
      if (values[i] < 0) throw new RangeError(`scatterbrain: buckets must not be negative, got ${values[i]}`);
    return column(values, L, H, rounds);
  };
  return { rounds, q: of(queryBuckets as tf.Tensor, T), k: of(keyBuckets as tf.Tensor, k.shape[1] as number) };
}

function rotated(
  { q, k, hashVectors }: ScatterbrainInputs,
  { rounds = 1, numBuckets = 16, seed = 0 }: RotationHash,
  fused: boolean,
): { rounds: number; q: BucketsOf; k: BucketsOf } {
  const [B, , H, E] = q.shape as [number, number, number, number];
  const rotations = hashVectors ? numbersOf(hashVectors) : hashRotations(E, rounds, numBuckets, seed);
  const of = (x: tf.Tensor) => {
    const T = x.shape[1] as number;
    const buckets = fused
      ? fusedBuckets(x, rotations, rounds)
      : rotationBuckets(numbersOf(x), { B, T, H, E }, rotations, rounds);
    return column(buckets, T, H, rounds);
  };
  return { rounds, q: of(q), k: of(k) };
}

function sorted({ q, k, hashVectors }: ScatterbrainInputs, hash: SortedHash): Buckets {
  const { rounds = 1, bucketSize, keyBucketSize, seed = 0 } = hash;
  const [, , H, E] = q.shape as [number, number, number, number];
  const directions = hashVectors ? numbersOf(hashVectors) : hashDirections(E, rounds, seed);
  const numbers = [q, k].map(numbersOf);
  const rows = (which: number, { b, h, first }: Place, count: number): Rows => {
    const L = (which ? k : q).shape[1] as number;
    return {
      x: numbers[which],
      starts: Int32Array.from({ length: count }, (_, i) => ((b * L + first + i) * H + h) * E),
    };
  };
  return {
    rounds,
    of: (place, [queries, keys], round) => {
      const sizes = [bucketSize, keyBucketSize ?? Math.ceil(keys / Math.ceil(queries / bucketSize))] as const;
      const [pieces, keyPieces] = [Math.ceil(queries / sizes[0]), Math.ceil(keys / sizes[1])];
      if (keyBucketSize !== undefined && pieces !== keyPieces)
        throw new RangeError(
          `scatterbrain: hash.keyBucketSize must cut ${keys} keys into as many buckets as bucketSize cuts queries, ${pieces}, got ${keyPieces} of ${keyBucketSize}`,
        );
      return sortedBuckets(rows(0, place, queries), rows(1, place, keys), E, directions, { rounds, round }, sizes);
    },
  };
}

/** Keys of a round in the order of time: those in its buckets from the past, then the new ones. */
function keysOf(
  { initialState }: ScatterbrainInputs,
  buckets: Int32Array,
  { b, h, round }: { b: number; h: number; round: number },
  { hash }: Options,
  { slots, past, position }: Past,
): RoundKeys {
  const now = Int32Array.from(buckets, (_, i) => i);
  const first = slots + past;
  if (slots === 0) return { rows: now.map((i) => first + i), times: now.map((i) => past + i), buckets };
  const { numBuckets = 16, bucketSize } = hash as RotationHash;
  const state = initialState?.bucketPosition as tf.Tensor;
  const positions = state.dataSync();
  const H = state.shape[2] as number;
  const [rows, times, old]: [number[], number[], number[]] = [[], [], []];
  for (let i = 0; i < numBuckets * bucketSize; i++) {
    const row = round * numBuckets * bucketSize + i;
    const at = positions[(b * slots + row) * H + h];
    if (at === 0) continue;
    rows.push(row);
    times.push(at - 1 - position + past);
    old.push(Math.floor(i / bucketSize));
  }
  return {
    rows: Int32Array.from([...rows, ...now.map((i) => first + i)]),
    times: Int32Array.from([...times, ...now.map((i) => past + i)]),
    buckets: Int32Array.from([...old, ...buckets]),
  };
}
