/** What layers of softmax attention share: projections to heads, their norms, and a cache of keys and values (https://arxiv.org/abs/2305.13245). */
import * as tf from '@tensorflow/tfjs';
import { rmsNorm } from '../chunked/index.js';
import { append, keepLast } from './cache.js';
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

export interface AttentionOptions extends LinearOption {
  /** Model width D. */
  hiddenSize: number;
  /** Default 4. */
  numHeads: number;
  /** Key/value heads, each shared by numHeads / numKvHeads heads of q in a row; null (default): numHeads. */
  numKvHeads: number | null;
  /** Width of a head; null (default): hiddenSize / numHeads. */
  headDim: number | null;
  /** RMSNorm over each head of q and k, default false (https://arxiv.org/abs/2010.04245; Qwen3 has it). */
  qkNorm: boolean;
  /** Of those norms, default 1e-6. */
  normEps: number;
  /** A token sees itself and the window - 1 tokens before it, and the cache keeps no more; null (default): all. */
  window: number | null;
  /** Together with the layer's name, the start of the weights where no model gives it; default 0. */
  seed: number;
}

export const attentionDefaults: Omit<AttentionOptions, 'hiddenSize'> = {
  numHeads: 4,
  numKvHeads: null,
  headDim: null,
  qkNorm: false,
  normEps: 1e-6,
  window: null,
  linear: 'dense',
  seed: 0,
};

/** Queries [B, T, H, headDim], and keys and values [B, S, G, headDim] of the past and of these tokens. */
export interface AttentionHeads {
  q: tf.Tensor;
  k: tf.Tensor;
  v: tf.Tensor;
}

/** Where the queries are: tokens before the first, and the documents they are packed from. */
export interface AttentionPlace {
  offset: number;
  cuSeqlens?: Int32Array;
}

/**
 * [B, T, D] -> [B, T, D]; state `{ k, v [B, S, G, headDim] }`, the keys and values of the past, at most window - 1 of them; with a window
 * also `position` [1] (int32), the tokens read so far. Packed documents differ in length, so they give and take no cache: `{}`.
 */
export abstract class AttentionLayer<O extends AttentionOptions> extends SeqLayer<O> {
  protected readonly kvHeads: number;
  protected readonly headDim: number;

  protected constructor(args: LayerArgs<O>, defaults: Omit<O, 'hiddenSize'>) {
    super(args, defaults);
    const { hiddenSize, numHeads, numKvHeads, headDim, normEps } = this.options;
    this.requirePositive('numHeads');
    for (const name of ['numKvHeads', 'headDim', 'window'] as const)
      if (this.options[name] !== null) this.requirePositive(name);
    this.kvHeads = numKvHeads ?? numHeads;
    this.headDim = headDim ?? hiddenSize / numHeads;
    this.require(
      headDim !== null || hiddenSize % numHeads === 0,
      `numHeads must divide hiddenSize unless headDim is given, got ${numHeads} and ${hiddenSize}`,
    );
    this.require(numHeads % this.kvHeads === 0, `numKvHeads must divide numHeads, got ${numKvHeads} and ${numHeads}`);
    this.require(normEps > 0, `normEps must be positive, got ${normEps}`);
  }

  /** o [B, T, H, headDim] of the queries over all keys. */
  protected abstract attend(heads: AttentionHeads, place: AttentionPlace): tf.Tensor;

  /** Positions written into heads of q or k; by default none are. */
  protected positioned(x: tf.Tensor, _place: AttentionPlace): tf.Tensor {
    return x;
  }

  override forward(x: tf.Tensor, state?: LayerState, options: ForwardOptions = {}): LayerOutput {
    if (options.cuSeqlens && state)
      throw new RangeError(`${this.label}: packed documents take no state, as their caches would differ in length`);
    return super.forward(x, state, options);
  }

  override weightSpecs(): Record<string, WeightSpec> {
    const { hiddenSize, numHeads, qkNorm } = this.options;
    const [inner, kvInner] = [numHeads * this.headDim, this.kvHeads * this.headDim];
    return withNorms(this.options.linear, {
      'q_proj.weight': matrix(inner, hiddenSize),
      'k_proj.weight': matrix(kvInner, hiddenSize),
      'v_proj.weight': matrix(kvInner, hiddenSize),
      ...(qkNorm && { 'q_norm.weight': normScale(this.headDim), 'k_norm.weight': normScale(this.headDim) }),
      'o_proj.weight': matrix(hiddenSize, inner),
    });
  }

  protected override run(x: tf.Tensor, state: LayerState | undefined, { cuSeqlens }: ForwardOptions): LayerOutput {
    const { numHeads } = this.options;
    const place = { offset: state ? this.positionOf(state) : 0, cuSeqlens };
    const heads = (name: string, count: number) => splitHeads(this.project(x, `${name}_proj`), count);
    const placed = (name: 'q' | 'k', count: number) => this.positioned(this.#norm(name, heads(name, count)), place);
    const q = placed('q', numHeads);
    const k = append(state?.k, placed('k', this.kvHeads));
    const v = append(state?.v, heads('v', this.kvHeads));
    const y = this.project(mergeHeads(this.attend({ q, k, v }, place)), 'o_proj');
    return { y, state: cuSeqlens ? {} : this.cache(k, v, place.offset + x.shape[1]!) };
  }

  #norm(name: 'q' | 'k', x: tf.Tensor): tf.Tensor {
    const { qkNorm, normEps: eps } = this.options;
    return qkNorm ? rmsNorm({ x, weight: this.need(`${name}_norm.weight`) }, { eps }) : x;
  }

  /** The state after `position` tokens. */
  protected cache(k: tf.Tensor, v: tf.Tensor, position: number): LayerState {
    const { window } = this.options;
    if (window === null) return { k, v };
    const last = Math.min(k.shape[1]!, window - 1);
    return { k: keepLast(k, last), v: keepLast(v, last), position: tf.tensor1d([position], 'int32') };
  }

  protected override stateSpecs(batch: number, position: number): Record<string, StateSpec> {
    const { window } = this.options;
    const length = window === null ? position : Math.min(position, window - 1);
    const cache = { shape: [batch, length, this.kvHeads, this.headDim] };
    return { k: cache, v: cache, ...(window !== null && { position: { shape: [1], dtype: 'int32' } }) };
  }

  /** Without a window the cache itself tells. `position` is read at the call: no kernel takes it, so on webgpu it never left the host. */
  protected override positionOf({ k, position }: LayerState): number {
    return position ? position.dataSync()[0] : (k?.shape[1] ?? 0);
  }
}
