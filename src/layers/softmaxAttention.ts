/**
 * Causal softmax attention with rotary positions (Su et al. 2021, https://arxiv.org/abs/2104.09864) and shared key/value heads
 * (Ainslie et al. 2023, https://arxiv.org/abs/2305.13245), the quadratic layer of hybrid models.
 */
import * as tf from '@tensorflow/tfjs';
import { flashAttention, rmsNorm, rotaryEmbedding } from '../chunked/index.js';
import { append } from './cache.js';
import { mergeHeads, splitHeads } from './heads.js';
import {
  type ForwardOptions,
  type LayerArgs,
  type LayerOutput,
  type LayerState,
  SeqLayer,
  type StateSpec,
  type WeightSpec,
} from './seqLayer.js';
import { type LinearOption, matrix, normScale, withNorms } from './weightSpecs.js';

export interface SoftmaxAttentionOptions extends LinearOption {
  /** Model width D. */
  hiddenSize: number;
  /** Default 4. */
  numHeads: number;
  /** Key/value heads, each shared by numHeads / numKvHeads heads of q in a row; null (default): numHeads. */
  numKvHeads: number | null;
  /** Width of a head; null (default): hiddenSize / numHeads. */
  headDim: number | null;
  /** Base of the rotary frequencies, default 10000; null: no positions. */
  ropeBase: number | null;
  /** RMSNorm over each head of q and k before the positions, default false (https://arxiv.org/abs/2010.04245; Qwen3 has it). */
  qkNorm: boolean;
  /** Of those norms, default 1e-6. */
  normEps: number;
  /** A token sees itself and the window - 1 tokens before it, and the cache keeps no more; null (default): all. */
  window: number | null;
  /** Together with the layer's name, the start of the weights where no model gives it; default 0. */
  seed: number;
}

const defaults: Omit<SoftmaxAttentionOptions, 'hiddenSize'> = {
  numHeads: 4,
  numKvHeads: null,
  headDim: null,
  ropeBase: 10000,
  qkNorm: false,
  normEps: 1e-6,
  window: null,
  linear: 'dense',
  seed: 0,
};

/**
 * [B, T, D] -> [B, T, D]; state `{ k, v [B, S, G, headDim] }`, the (rotated) keys and values of the past, at most window - 1 of them; with
 * a window also `position` [1] (int32), the tokens read so far. Packed documents differ in length, so they give and take no cache: `{}`.
 */
export class SoftmaxAttention extends SeqLayer<SoftmaxAttentionOptions> {
  static readonly className: string = 'SoftmaxAttention';
  readonly #kvHeads: number;
  readonly #headDim: number;

  /** @throws RangeError when an option is unknown or does not fit the others */
  constructor(args: LayerArgs<SoftmaxAttentionOptions>) {
    super(args, defaults);
    const { hiddenSize, numHeads, numKvHeads, headDim, ropeBase, normEps } = this.options;
    this.requirePositive('numHeads');
    for (const name of ['numKvHeads', 'headDim', 'window'] as const)
      if (this.options[name] !== null) this.requirePositive(name);
    this.#kvHeads = numKvHeads ?? numHeads;
    this.#headDim = headDim ?? hiddenSize / numHeads;
    this.require(
      headDim !== null || hiddenSize % numHeads === 0,
      `numHeads must divide hiddenSize unless headDim is given, got ${numHeads} and ${hiddenSize}`,
    );
    this.require(numHeads % this.#kvHeads === 0, `numKvHeads must divide numHeads, got ${numKvHeads} and ${numHeads}`);
    this.require(normEps > 0, `normEps must be positive, got ${normEps}`);
    this.require(ropeBase === null || ropeBase > 1, `ropeBase must be greater than 1, got ${ropeBase}`);
    this.require(
      ropeBase === null || this.#headDim % 2 === 0,
      `headDim must be even for rotary positions, got ${this.#headDim}; give an even headDim or ropeBase: null`,
    );
  }

  override forward(x: tf.Tensor, state?: LayerState, options: ForwardOptions = {}): LayerOutput {
    if (options.cuSeqlens && state)
      throw new RangeError(`${this.label}: packed documents take no state, as their caches would differ in length`);
    return super.forward(x, state, options);
  }

  override weightSpecs(): Record<string, WeightSpec> {
    const { hiddenSize, numHeads, qkNorm } = this.options;
    const [inner, kvInner] = [numHeads * this.#headDim, this.#kvHeads * this.#headDim];
    return withNorms(this.options.linear, {
      'q_proj.weight': matrix(inner, hiddenSize),
      'k_proj.weight': matrix(kvInner, hiddenSize),
      'v_proj.weight': matrix(kvInner, hiddenSize),
      ...(qkNorm && { 'q_norm.weight': normScale(this.#headDim), 'k_norm.weight': normScale(this.#headDim) }),
      'o_proj.weight': matrix(hiddenSize, inner),
    });
  }

  protected override run(x: tf.Tensor, state: LayerState | undefined, { cuSeqlens }: ForwardOptions): LayerOutput {
    const { numHeads, window } = this.options;
    const offset = state ? this.positionOf(state) : 0;
    const heads = (name: string, count: number) => splitHeads(this.project(x, `${name}_proj`), count);
    const placed = (name: 'q' | 'k', count: number) =>
      this.#rotate(this.#norm(name, heads(name, count)), offset, cuSeqlens);
    const q = placed('q', numHeads);
    const k = append(state?.k, placed('k', this.#kvHeads));
    const v = append(state?.v, heads('v', this.#kvHeads));
    const { o } = flashAttention({ q, k, v }, { causal: true, window: window ?? undefined, cuSeqlens });
    const y = this.project(mergeHeads(o), 'o_proj');
    return { y, state: cuSeqlens ? {} : this.#cache(k, v, offset + x.shape[1]!) };
  }

  #norm(name: 'q' | 'k', x: tf.Tensor): tf.Tensor {
    const { qkNorm, normEps: eps } = this.options;
    return qkNorm ? rmsNorm({ x, weight: this.need(`${name}_norm.weight`) }, { eps }) : x;
  }

  #rotate(x: tf.Tensor, offset: number, cuSeqlens?: Int32Array): tf.Tensor {
    const { ropeBase } = this.options;
    return ropeBase === null ? x : rotaryEmbedding({ x }, { base: ropeBase, offset, cuSeqlens });
  }

  #cache(k: tf.Tensor, v: tf.Tensor, position: number): LayerState {
    const { window } = this.options;
    if (window === null) return { k, v };
    const last = Math.min(k.shape[1]!, window - 1);
    return { k: keepLast(k, last), v: keepLast(v, last), position: tf.tensor1d([position], 'int32') };
  }

  protected override stateSpecs(batch: number, position: number): Record<string, StateSpec> {
    const { window } = this.options;
    const length = window === null ? position : Math.min(position, window - 1);
    const cache = { shape: [batch, length, this.#kvHeads, this.#headDim] };
    return { k: cache, v: cache, ...(window !== null && { position: { shape: [1], dtype: 'int32' } }) };
  }

  /** Without a window the cache itself tells. `position` is read at the call: no kernel takes it, so on webgpu it never left the host. */
  protected override positionOf({ k, position }: LayerState): number {
    return position ? position.dataSync()[0] : (k.shape[1] ?? 0);
  }
}
tf.serialization.registerClass(SoftmaxAttention);

/** The last `n` of [B, S, G, D] along S. */
function keepLast(x: tf.Tensor, n: number): tf.Tensor {
  const [B, S, G, D] = x.shape as [number, number, number, number];
  return n === S ? x : tf.slice(x, [0, S - n, 0, 0], [B, n, G, D]);
}
