/**
 * Scatterbrain attention (Chen et al. 2021, https://arxiv.org/abs/2110.15343): softmax attention that is exact near the query and in buckets of a hash, and a
 * sum over random features elsewhere. Its time is linear in the number of tokens, and what a causal layer keeps of the past does not grow with it.
 */
import * as tf from '@tensorflow/tfjs';
import { defaultNbFeatures, orthogonalProjection, rotaryEmbedding, scatterbrain } from '../chunked/index.js';
import {
  bucketSlots,
  type RotationHash,
  type ScatterbrainState,
  type SortedHash,
  stateParts,
} from '../chunked/scatterbrain/inputs.js';
import { refuseState } from './bidirectional.js';
import { mergeHeads, splitHeads } from './heads.js';
import { withoutPadding } from './padding.js';
import {
  type ForwardOptions,
  type LayerArgs,
  type LayerOutput,
  type LayerState,
  SeqLayer,
  type StateSpec,
  type WeightSpec,
} from './seqLayer.js';
import { type LinearOption, matrix, withNorms } from './weightSpecs.js';

/** The hash of a layer; what it projects on is a weight. */
export type LayerHash = Omit<RotationHash, 'seed'> | Omit<SortedHash, 'seed' | 'acceptFutureMembership'>;

export interface ScatterbrainAttentionOptions extends LinearOption {
  /** Model width D. */
  hiddenSize: number;
  /** Default 4. */
  numHeads: number;
  /** Width E of a head; null (default): hiddenSize / numHeads. */
  headDim: number | null;
  /** Random features m, even; null (default): floor(E ln E), made even. */
  nbFeatures: number | null;
  /** Exact pairs: a token and the windowSize - 1 before it, or, in both directions, the windowSize around it. Default 64; null: none. */
  windowSize: number | null;
  /** More exact pairs: those in one bucket. Default null: none. `sorted` needs `bidirectional`. */
  hash: LayerHash | null;
  /** Factor on q . k; null (default): E ** -0.5. */
  softmaxTemp: number | null;
  /** Default `sum`; `sparse-only` leaves the features out, `low-rank-only` the exact pairs. */
  mode: 'sum' | 'sparse-only' | 'low-rank-only';
  /** Base of the rotary frequencies, default 10000; null: no positions. */
  ropeBase: number | null;
  /** Every token sees all others, default false: it sees those before it. */
  bidirectional: boolean;
  /** Together with the layer's name, the start of the weights where no model gives it; default 0. */
  seed: number;
}

const defaults: Omit<ScatterbrainAttentionOptions, 'hiddenSize'> = {
  ...{ numHeads: 4, headDim: null, nbFeatures: null, windowSize: 64, hash: null, softmaxTemp: null, mode: 'sum' },
  ...{ ropeBase: 10000, bidirectional: false, linear: 'dense', seed: 0 },
};

/**
 * [B, T, D] -> [B, T, D]; state as `ScatterbrainState`. A layer that reads in both directions has none, and packed documents give and take none:
 * their windows differ in length. The projection of the features (`feature_map.projection_matrix`, as published) and what the hash projects on
 * (`hash.vectors`) are drawn once and stored with the weights; they do not train.
 */
export class ScatterbrainAttention extends SeqLayer<ScatterbrainAttentionOptions> {
  static readonly className: string = 'ScatterbrainAttention';
  readonly #headDim: number;
  readonly #features: number;

  /** @throws RangeError when an option is unknown or does not fit the others */
  constructor(args: LayerArgs<ScatterbrainAttentionOptions>) {
    super(args, defaults);
    const { hiddenSize, numHeads, headDim, nbFeatures } = this.options;
    this.requirePositive('numHeads');
    for (const name of ['headDim', 'windowSize', 'nbFeatures'] as const)
      if (this.options[name] !== null) this.requirePositive(name);
    this.require(
      headDim !== null || hiddenSize % numHeads === 0,
      `numHeads must divide hiddenSize unless headDim is given, got ${numHeads} and ${hiddenSize}`,
    );
    this.#headDim = headDim ?? hiddenSize / numHeads;
    this.#features = nbFeatures ?? defaultNbFeatures(this.#headDim);
    this.require(this.#features % 2 === 0, `nbFeatures must be even, got ${nbFeatures}`);
    this.#checkOptions();
  }

  #checkOptions(): void {
    const { windowSize, hash, softmaxTemp, mode, ropeBase, bidirectional } = this.options;
    this.require(
      softmaxTemp === null || (softmaxTemp > 0 && softmaxTemp < Number.POSITIVE_INFINITY),
      `softmaxTemp must be positive, got ${softmaxTemp}`,
    );
    this.require(ropeBase === null || ropeBase > 1, `ropeBase must be greater than 1, got ${ropeBase}`);
    this.require(
      ropeBase === null || this.#headDim % 2 === 0,
      `headDim must be even for rotary positions, got ${this.#headDim}; give an even headDim or ropeBase: null`,
    );
    this.require(
      hash?.type !== 'sorted' || bidirectional,
      "hash 'sorted' places a token by all others, so it needs bidirectional: true; use hash 'rotation'",
    );
    this.require(
      hash?.type !== 'rotation' || (hash.numBuckets ?? 16) % 2 === 0,
      `hash.numBuckets must be even, got ${hash?.type === 'rotation' && hash.numBuckets}`,
    );
    this.require(
      mode !== 'sparse-only' || windowSize !== null || hash !== null,
      "mode 'sparse-only' needs windowSize or hash: without them no pair is left",
    );
  }

  override forward(x: tf.Tensor, state?: LayerState, options: ForwardOptions = {}): LayerOutput {
    refuseState(this.label, this.options.bidirectional, state);
    if (options.cuSeqlens && state)
      throw new RangeError(`${this.label}: packed documents take no state, as their windows would differ in length`);
    const { lengths } = options;
    if (lengths && this.options.bidirectional)
      return tf.tidy(() => {
        const y = withoutPadding(
          x,
          lengths,
          (rows, cuSeqlens) => super.forward(rows, undefined, { ...options, cuSeqlens }).y,
        );
        return { y, state: {} };
      });
    return super.forward(x, this.options.bidirectional ? undefined : state, options);
  }

  override weightSpecs(): Record<string, WeightSpec> {
    const { hiddenSize, numHeads, mode, hash, linear } = this.options;
    const inner = numHeads * this.#headDim;
    return withNorms(linear, {
      ...{ 'q_proj.weight': matrix(inner, hiddenSize), 'k_proj.weight': matrix(inner, hiddenSize) },
      ...{ 'v_proj.weight': matrix(inner, hiddenSize), 'o_proj.weight': matrix(hiddenSize, inner) },
      ...(mode !== 'sparse-only' && { 'feature_map.projection_matrix': this.#projection() }),
      ...(hash && mode !== 'low-rank-only' && { 'hash.vectors': hashVectors(hash, this.#headDim) }),
    });
  }

  #projection(): WeightSpec {
    const [headDim, nbFeatures] = [this.#headDim, this.#features];
    return {
      ...{ shape: [nbFeatures / 2, headDim], kind: 'other', constant: true, learningRate: 0 },
      init: (rng) => orthogonalProjection({ headDim, nbFeatures, seed: rng.uint32() }),
    };
  }

  protected override run(x: tf.Tensor, state: LayerState | undefined, { cuSeqlens }: ForwardOptions): LayerOutput {
    const { numHeads, windowSize, hash, softmaxTemp, mode, bidirectional } = this.options;
    const offset = state ? this.positionOf(state) : 0;
    const all = this.projectAll(x, ['q_proj', 'k_proj', 'v_proj']);
    const [q, k] = ['q_proj', 'k_proj'].map((name) => this.#rotate(splitHeads(all[name], numHeads), offset, cuSeqlens));
    const v = splitHeads(all.v_proj, numHeads);
    const projection = this.weight('feature_map.projection_matrix');
    const { o, finalState } = scatterbrain(
      { q, k, v, projection, hashVectors: this.weight('hash.vectors'), initialState: state as ScatterbrainState },
      {
        ...{ causal: !bidirectional, windowSize: windowSize ?? undefined, mode, cuSeqlens },
        ...{ hash: mode === 'low-rank-only' ? undefined : (hash ?? undefined), softmaxTemp: softmaxTemp ?? undefined },
      },
    );
    return { y: this.project(mergeHeads(o), 'o_proj'), state: (finalState ?? {}) as LayerState };
  }

  #rotate(x: tf.Tensor, offset: number, cuSeqlens?: Int32Array): tf.Tensor {
    const { ropeBase } = this.options;
    return ropeBase === null ? x : rotaryEmbedding({ x }, { base: ropeBase, offset, cuSeqlens });
  }

  protected override stateSpecs(batch: number, position: number): Record<string, StateSpec> {
    const { numHeads: H, windowSize, hash, mode, bidirectional } = this.options;
    if (bidirectional) return {};
    const [E, m] = [this.#headDim, this.#features];
    const kept = Math.min(position, (windowSize ?? 1) - 1);
    const slots = hash ? bucketSlots(hash as RotationHash) : 0;
    const shapes: Record<string, StateSpec> = {
      position: { shape: [1], dtype: 'int32' },
      lowRank: { shape: [batch, H, m, E] },
      normalizer: { shape: [batch, H, m] },
      exponent: { shape: [batch, H], dtype: 'int32' },
      ...{ k: { shape: [batch, kept, H, E] }, v: { shape: [batch, kept, H, E] } },
      ...{ bucketK: { shape: [batch, slots, H, E] }, bucketV: { shape: [batch, slots, H, E] } },
      bucketPosition: { shape: [batch, slots, H], dtype: 'int32' },
    };
    const given = { windowSize: windowSize ?? undefined, hash: hash ?? undefined, mode };
    return Object.fromEntries(stateParts(given).map((name) => [name, shapes[name]]));
  }

  /** Read at the call: no kernel takes it. */
  protected override positionOf({ position }: LayerState): number {
    return position.dataSync()[0];
  }
}
tf.serialization.registerClass(ScatterbrainAttention);

function hashVectors(hash: LayerHash, headDim: number): WeightSpec {
  const { rounds = 1 } = hash;
  const shape = hash.type === 'sorted' ? [headDim + 2, rounds] : [headDim, rounds, (hash.numBuckets ?? 16) / 2];
  return {
    ...{ shape, kind: 'other', constant: true, learningRate: 0 },
    init: (rng, size) => rng.normalArray(size),
  };
}
