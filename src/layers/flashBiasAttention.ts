/**
 * Softmax attention whose positions are an additive bias of low rank (FlashBias, https://arxiv.org/abs/2505.12044): ALiBi
 * (https://arxiv.org/abs/2108.12409), T5 buckets (https://arxiv.org/abs/1910.10683), or factors that are weights.
 */
import * as tf from '@tensorflow/tfjs';
import { alibi, alibiSlopes, t5CausalBand } from '../bias/index.js';
import { checkOneOf } from '../chunked/check.js';
import { type FlashBiasInputs, flashBias } from '../chunked/index.js';
import {
  type AttentionHeads,
  AttentionLayer,
  type AttentionOptions,
  type AttentionPlace,
  attentionDefaults,
} from './attentionLayer.js';
import { refuseState } from './bidirectional.js';
import type { ForwardOptions, LayerArgs, LayerOutput, LayerState, StateSpec, WeightSpec } from './seqLayer.js';

export interface FlashBiasAttentionOptions extends AttentionOptions {
  /**
   * `alibi` (default): m (j - i), slopes m of each head; `t5`: a table of buckets of the distance, exact for causal attention; `learned`: the
   * factors of each position and head are weights (FlashBias, Sec. 3.2, training from scratch).
   */
  bias: 'alibi' | 't5' | 'learned';
  /** Of `alibi`: 2^(-8 (h + 1) / H) (`formula`, default), those of the authors' code (`published`), or the first as a start (`learned`). */
  slopes: 'formula' | 'published' | 'learned';
  /** Of `t5`, default 32. */
  numBuckets: number;
  /** Of `t5`: distances from here on share a bucket, default 128. */
  maxDistance: number;
  /** Of `learned`: numbers in a factor, default 16. */
  rank: number;
  /** Of `learned`: positions there are factors for, default 1024. */
  maxLength: number;
  /** See all tokens, default false. Such a layer has no state, and no window; `alibi` and `t5` are for the past alone. */
  bidirectional: boolean;
}

const defaults: Omit<FlashBiasAttentionOptions, 'hiddenSize'> = {
  ...attentionDefaults,
  bias: 'alibi',
  slopes: 'formula',
  numBuckets: 32,
  maxDistance: 128,
  rank: 16,
  maxLength: 1024,
  bidirectional: false,
};

type Terms = Pick<FlashBiasInputs, 'phiQ' | 'phiK' | 'band'>;

/** [B, T, D] -> [B, T, D]; state as in `AttentionLayer`, none when bidirectional. */
export class FlashBiasAttention extends AttentionLayer<FlashBiasAttentionOptions> {
  static readonly className: string = 'FlashBiasAttention';

  /** @throws RangeError when an option is unknown or does not fit the others */
  constructor(args: LayerArgs<FlashBiasAttentionOptions>) {
    super(args, defaults);
    const { bias, slopes, bidirectional, window, numBuckets, maxDistance } = this.options;
    checkOneOf('FlashBiasAttention', 'bias', bias, ['alibi', 't5', 'learned']);
    checkOneOf('FlashBiasAttention', 'slopes', slopes, ['formula', 'published', 'learned']);
    for (const name of ['numBuckets', 'maxDistance', 'rank', 'maxLength'] as const) this.requirePositive(name);
    this.require(numBuckets > 1, `numBuckets must be at least 2, got ${numBuckets}`);
    this.require(
      maxDistance > Math.floor(numBuckets / 2),
      `maxDistance must be above numBuckets / 2, got ${maxDistance} and ${numBuckets}`,
    );
    this.require(
      !bidirectional || bias === 'learned',
      `bidirectional needs bias: 'learned', got '${bias}', which is for the past alone`,
    );
    this.require(!bidirectional || window === null, `a bidirectional layer has no window, got ${window}`);
  }

  /** @throws RangeError for a state of a bidirectional layer, and for more positions than there are factors for */
  override forward(x: tf.Tensor, state?: LayerState, options: ForwardOptions = {}): LayerOutput {
    refuseState(this.label, this.options.bidirectional, state);
    return super.forward(x, state, options);
  }

  override weightSpecs(): Record<string, WeightSpec> {
    return { ...super.weightSpecs(), ...this.#biasSpecs() };
  }

  #biasSpecs(): Record<string, WeightSpec> {
    const { bias, slopes, numHeads, numBuckets, maxLength, rank } = this.options;
    if (bias === 't5')
      return {
        relative_bias: { shape: [numBuckets, numHeads], kind: 'other', init: (rng, n) => rng.normalArray(n, 0.02) },
      };
    if (bias === 'learned') {
      // A product of R terms of this size is about 0.1: smaller, and neither factor would get a gradient.
      const factor: WeightSpec = {
        shape: [maxLength, numHeads, rank],
        kind: 'other',
        init: (rng, n) => rng.normalArray(n, (0.01 / rank) ** 0.25),
      };
      return { phi_q: factor, phi_k: factor };
    }
    if (slopes !== 'learned') return {};
    const start = () => Float32Array.from(alibiSlopes(numHeads), Math.log);
    return { log_slopes: { shape: [numHeads], kind: 'other', init: start } };
  }

  protected override attend(heads: AttentionHeads, place: AttentionPlace): tf.Tensor {
    const { bias, slopes, window, bidirectional } = this.options;
    const lengths = { queries: heads.q.shape[1] as number, keys: heads.k.shape[1] as number };
    const options = {
      causal: !bidirectional,
      window: window ?? undefined,
      cuSeqlens: place.cuSeqlens,
      factorGradient: bias !== 'alibi' || (slopes === 'learned' && (['phiQ'] as const)), // phiK are positions
    };
    return flashBias({ ...heads, ...this.#terms(lengths, place) }, options).o;
  }

  #terms(lengths: { queries: number; keys: number }, place: AttentionPlace): Terms {
    const { bias, slopes, numHeads, numBuckets, maxDistance } = this.options;
    if (bias === 't5') return { band: t5CausalBand(this.need('relative_bias'), { numBuckets, maxDistance }) };
    if (bias === 'learned') return this.#learned(lengths, place);
    const of = slopes === 'learned' ? tf.exp(this.need('log_slopes')) : alibiSlopes(numHeads, slopes);
    return alibi({ slopes: of, ...lengths });
  }

  /** Factors of the positions of queries and keys; packed documents each begin at position 0. */
  #learned({ queries, keys }: { queries: number; keys: number }, { offset, cuSeqlens }: AttentionPlace): Terms {
    const end = offset + queries;
    const rows = (name: string, first: number, count: number) => {
      const weight = this.need(name);
      const positions = cuSeqlens && tf.tensor1d(positionsOf(cuSeqlens), 'int32');
      const part = positions ? tf.gather(weight, positions) : tf.slice(weight, [first, 0, 0], [count, -1, -1]);
      return tf.expandDims(part, 0);
    };
    const last = cuSeqlens ? Math.max(...cuSeqlens.slice(1).map((to, n) => to - cuSeqlens[n])) : end;
    const { maxLength } = this.options;
    if (last > maxLength)
      throw new RangeError(
        `${this.label}: has factors for ${maxLength} positions (maxLength), got a sequence of ${last}; learned factors do not reach further`,
      );
    return { phiQ: rows('phi_q', offset, queries), phiK: rows('phi_k', end - keys, keys) };
  }

  protected override cache(k: tf.Tensor, v: tf.Tensor, position: number): LayerState {
    return this.options.bidirectional ? {} : super.cache(k, v, position);
  }

  protected override stateSpecs(batch: number, position: number): Record<string, StateSpec> {
    return this.options.bidirectional ? {} : super.stateSpecs(batch, position);
  }
}
tf.serialization.registerClass(FlashBiasAttention);

/** Position of every token in its document. */
function positionsOf(cuSeqlens: Int32Array): Int32Array {
  const positions = new Int32Array(cuSeqlens[cuSeqlens.length - 1]);
  for (let n = 1; n < cuSeqlens.length; n++)
    for (let t = cuSeqlens[n - 1]; t < cuSeqlens[n]; t++) positions[t] = t - cuSeqlens[n - 1];
  return positions;
}
