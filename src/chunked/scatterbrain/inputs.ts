/** Inputs, options and state of `scatterbrain`, and their checks. */
import type * as tf from '@tensorflow/tfjs';
import { checkCuSeqlens, checkDtype, checkGiven, checkOneOf, checkPositiveInt, checkShapes } from '../check.js';
import type { PlainForm } from '../form.js';

/** float32 where nothing else is said. B batch, T queries, S keys, H heads, E key width, V value width, m = 2 r features. */
export interface ScatterbrainInputs {
  /** Queries [B, T, H, E]. */
  q: tf.Tensor;
  /** Keys [B, S, H, E]; causal: S = T. */
  k: tf.Tensor;
  /** Values [B, S, H, V]. */
  v: tf.Tensor;
  /** W [r, E] of the random features (`orthogonalProjection`), a constant to the gradient; not needed where `mode` is `sparse-only`. */
  projection?: tf.Tensor;
  /**
   * What `hash` projects on, in place of what it draws from its seed: rotations [E, rounds, numBuckets / 2], or directions [E + 2, rounds] of
   * the sorted hash.
   */
  hashVectors?: tf.Tensor;
  /** int32 [B, T, H, rounds], in place of `hash`: a query sees the keys that are in its bucket in some round. */
  queryBuckets?: tf.Tensor;
  /** int32 [B, S, H, rounds]. */
  keyBuckets?: tf.Tensor;
  /** Causal: what an earlier call left; that of no tokens when absent. */
  initialState?: ScatterbrainState;
}

/** What a causal call keeps of the past: its size does not grow with it. Parts that the options leave without use are absent. */
export type ScatterbrainState = {
  /** int32 [1]: tokens read. */
  position: tf.Tensor;
  /** sum_j phi(k_j) v_j^T e^-exponent over the keys that no later query has in its window [B, H, m, V]. */
  lowRank?: tf.Tensor;
  /** The sum of phi(k_j) e^-exponent over them [B, H, m]; all zeros: there are none. */
  normalizer?: tf.Tensor;
  /** int32 [B, H]: the largest log phi among them, rounded up. */
  exponent?: tf.Tensor;
  /** Keys and values of the last windowSize - 1 tokens, or of all where there are fewer: [B, P, H, E] and [B, P, H, V]. */
  k?: tf.Tensor;
  v?: tf.Tensor;
  /** Keys and values of the last bucketSize tokens of every bucket of every round, [B, rounds numBuckets bucketSize, H, E or V], newest last. */
  bucketK?: tf.Tensor;
  bucketV?: tf.Tensor;
  /** int32 [B, rounds numBuckets bucketSize, H]: their positions plus 1; 0: the place is empty. */
  bucketPosition?: tf.Tensor;
};

/** Buckets of the token alone: argmax over [x R, -x R] (https://arxiv.org/abs/2001.04451). The one hash that never looks ahead. */
export interface RotationHash {
  type: 'rotation';
  /** Default 16; even. */
  numBuckets?: number;
  /**
   * Keys of its bucket that a query sees in a round: the last so many at or before it; not causal: those around it, from floor(bucketSize / 2)
   * before the last key at or before it on.
   */
  bucketSize: number;
  /** Default 1. */
  rounds?: number;
  /** Of the rotations, where they are not given; default 0. */
  seed?: number | string;
}

/** Buckets of equal size by the order of random projections (https://arxiv.org/abs/2010.05315, as in the published Scatterbrain). */
export interface SortedHash {
  type: 'sorted';
  /** Queries of a bucket. */
  bucketSize: number;
  /** Keys of a bucket; default S over the number of buckets, rounded up. */
  keyBucketSize?: number;
  /** Default 1. */
  rounds?: number;
  /** Of the directions, where they are not given; default 0. */
  seed?: number | string;
  /**
   * A token's place in the order depends on all others. Causal calls are refused unless this is true: buckets then depend on later tokens, whose
   * values are still never read. There is no final state.
   */
  acceptFutureMembership?: boolean;
}

export interface ScatterbrainOptions {
  /** Default true: query t sees the keys j <= t. */
  causal?: boolean;
  /** Pairs near each other are exact: causal, a token and the windowSize - 1 before it; else -floor(w / 2) <= j - t < floor((w + 1) / 2). Default: none. */
  windowSize?: number;
  /** Pairs in one bucket are exact. Default: none. */
  hash?: RotationHash | SortedHash;
  /** Factor s on q . k, default E ** -0.5; larger is more peaked. */
  softmaxTemp?: number;
  /** `sum` (default); `sparse-only`: pairs off the support have weight 0; `low-rank-only`: no pair is exact. */
  mode?: 'sum' | 'sparse-only' | 'low-rank-only';
  /** Offsets [0, n1, n1 + n2, ..., T] of documents packed along time (B = 1 and S = T); each runs alone, and there is no state. */
  cuSeqlens?: Int32Array;
  /** Default true; false leaves `finalState` out. */
  outputFinalState?: boolean;
  form?: PlainForm;
}

export type ScatterbrainOutput = {
  /** Outputs [B, T, H, V]; 0 for a query that sees no key. */
  o: tf.Tensor;
  /** Causal calls without `cuSeqlens`, given buckets or the sorted hash. */
  finalState?: ScatterbrainState;
};

/** Throws where inputs or options are wrong or do not fit each other. */
export function checkCall(inputs: ScatterbrainInputs, options: ScatterbrainOptions): void {
  checkTensors(inputs, options);
  const { causal = true, windowSize, hash, softmaxTemp, mode = 'sum', cuSeqlens } = options;
  const { q, k, projection, hashVectors, queryBuckets, initialState } = inputs;
  const [B, T] = q.shape;
  const S = k.shape[1] as number;
  checkOneOf('scatterbrain', 'mode', mode, ['sum', 'sparse-only', 'low-rank-only']);
  if (mode !== 'sparse-only' && !projection)
    throw new TypeError(
      `scatterbrain: projection is required where mode is '${mode}', got ${projection}; make one with orthogonalProjection`,
    );
  if (softmaxTemp !== undefined && !(softmaxTemp > 0 && softmaxTemp < Number.POSITIVE_INFINITY))
    throw new RangeError(`scatterbrain: softmaxTemp must be positive, got ${softmaxTemp}`);
  if (windowSize !== undefined) checkPositiveInt('scatterbrain', 'windowSize', windowSize);
  if ((causal || windowSize !== undefined || cuSeqlens) && S !== T)
    throw new RangeError(
      `scatterbrain: a causal call, a window and cuSeqlens need as many keys as queries, got S = ${S} and T = ${T}`,
    );
  checkCuSeqlens('scatterbrain', cuSeqlens, B, T);
  if (hash) checkHash(hash, causal);
  if (hash && queryBuckets)
    throw new RangeError('scatterbrain: hash and given buckets exclude each other, got both; leave one out');
  if (hashVectors && !hash)
    throw new RangeError('scatterbrain: hashVectors need the option hash, got none; say which hash reads them');
  if (initialState) checkState(inputs, options);
}

function checkTensors({ q, k, v, ...given }: ScatterbrainInputs, { hash }: ScatterbrainOptions): void {
  const { projection, hashVectors, queryBuckets, keyBuckets } = given;
  checkGiven('scatterbrain', { q, k, v });
  checkDtype('scatterbrain', { q, k, v, projection, hashVectors });
  checkDtype('scatterbrain', { queryBuckets, keyBuckets }, 'int32');
  checkShapes('scatterbrain', { q: [q, [null, null, null, null]] });
  const [B, T, H, E] = q.shape;
  checkShapes('scatterbrain', { k: [k, [B, null, H, E]] });
  const S = k.shape[1] as number;
  checkShapes('scatterbrain', { v: [v, [B, S, H, null]], projection: [projection, [null, E]] });
  if (q.size === 0 || k.size === 0 || v.size === 0)
    throw new RangeError(
      `scatterbrain: q, k and v must not be empty, got [${q.shape.join(',')}], [${k.shape.join(',')}] and [${v.shape.join(',')}]`,
    );
  if (!queryBuckets !== !keyBuckets)
    throw new TypeError('scatterbrain: queryBuckets and keyBuckets go together, got one of them');
  checkShapes('scatterbrain', { queryBuckets: [queryBuckets, [B, T, H, null]] });
  checkShapes('scatterbrain', { keyBuckets: [keyBuckets, [B, S, H, (queryBuckets?.shape[3] as number) ?? null]] });
  if (!hash) return;
  const { rounds = 1 } = hash;
  const shape = hash.type === 'rotation' ? [E, rounds, (hash.numBuckets ?? 16) / 2] : [E + 2, rounds];
  checkShapes('scatterbrain', { hashVectors: [hashVectors, shape] });
}

function checkHash(hash: RotationHash | SortedHash, causal: boolean): void {
  checkOneOf('scatterbrain', 'hash.type', hash.type, ['rotation', 'sorted']);
  checkPositiveInt('scatterbrain', 'hash.bucketSize', hash.bucketSize);
  if (hash.rounds !== undefined) checkPositiveInt('scatterbrain', 'hash.rounds', hash.rounds);
  if (hash.type === 'rotation') {
    const { numBuckets = 16 } = hash;
    checkPositiveInt('scatterbrain', 'hash.numBuckets', numBuckets);
    if (numBuckets % 2 !== 0)
      throw new RangeError(
        `scatterbrain: hash.numBuckets must be even (a direction and its opposite), got ${numBuckets}`,
      );
    return;
  }
  if (hash.keyBucketSize !== undefined) checkPositiveInt('scatterbrain', 'hash.keyBucketSize', hash.keyBucketSize);
  if (causal && !hash.acceptFutureMembership)
    throw new RangeError(
      "scatterbrain: hash 'sorted' places a token by all others, so that buckets of a causal call would depend on later tokens; use hash 'rotation' or a window, or set hash.acceptFutureMembership: true",
    );
}

/** Which parts the state of a call has, by name, as functions of the options alone. */
export function stateParts({
  windowSize,
  hash,
  mode = 'sum',
}: Pick<ScatterbrainOptions, 'windowSize' | 'hash' | 'mode'>): string[] {
  const exact = mode !== 'low-rank-only';
  return [
    'position',
    ...(mode === 'sparse-only' ? [] : ['lowRank', 'normalizer', 'exponent']),
    ...(exact && windowSize ? ['k', 'v'] : []),
    ...(exact && hash ? ['bucketK', 'bucketV', 'bucketPosition'] : []),
  ];
}

/** Places of all buckets of all rounds. */
export const bucketSlots = ({ rounds = 1, numBuckets = 16, bucketSize }: RotationHash): number =>
  rounds * numBuckets * bucketSize;

function checkState(inputs: ScatterbrainInputs, options: ScatterbrainOptions): void {
  const { causal = true, hash, cuSeqlens } = options;
  const { q, v, projection, queryBuckets, initialState: state = {} as ScatterbrainState } = inputs;
  if (!causal || cuSeqlens || queryBuckets || hash?.type === 'sorted')
    throw new RangeError(
      'scatterbrain: initialState needs a causal call without cuSeqlens, given buckets or the sorted hash; leave it out',
    );
  const [want, got] = [stateParts(options), Object.keys(state)].map((names) => [...names].sort().join(', '));
  if (want !== got) throw new RangeError(`scatterbrain: initialState must hold ${want}, got ${got}`);
  const { position, exponent, bucketPosition, ...floats } = state;
  checkDtype('scatterbrain', { position, exponent, bucketPosition }, 'int32');
  checkDtype('scatterbrain', floats);
  const [B, , H, E] = q.shape;
  const V = v.shape[3] as number;
  const m = 2 * (projection?.shape[0] ?? 0);
  const slots = hash ? bucketSlots(hash as RotationHash) : 0;
  const past = state.k?.shape[1] ?? 0;
  checkShapes('scatterbrain', {
    'initialState.position': [position, [1]],
    'initialState.lowRank': [state.lowRank, [B, H, m, V]],
    'initialState.normalizer': [state.normalizer, [B, H, m]],
    'initialState.exponent': [exponent, [B, H]],
    'initialState.k': [state.k, [B, null, H, E]],
    'initialState.v': [state.v, [B, past, H, V]],
    'initialState.bucketK': [state.bucketK, [B, slots, H, E]],
    'initialState.bucketV': [state.bucketV, [B, slots, H, V]],
    'initialState.bucketPosition': [bucketPosition, [B, slots, H]],
  });
  const kept = Math.min(position.dataSync()[0], (options.windowSize ?? 1) - 1);
  if (state.k && past !== kept)
    throw new RangeError(`scatterbrain: initialState.k must hold the last ${kept} tokens, got ${past}`);
}
