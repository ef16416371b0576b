/**
 * Gated linear attention (Yang et al. 2023, https://arxiv.org/abs/2312.06635, Sec. 4.4).
 * Per head: `S_t = exp(g_t)[:, None] * S_{t-1} + k_t v_t^T`, `o_t = K^-0.5 * S_t^T q_t`, with a decay per key channel from
 * `g = logsigmoid(W2 W1 x + b) / 16`; the output is RMS-normed per head, gated and projected back.
 */
import * as tf from '@tensorflow/tfjs';
import { checkOneOf } from '../chunked/check.js';
import { gla, logSigmoidGate } from '../chunked/index.js';
import { ConvolvedMixer, type Widths } from './convolvedMixer.js';
import { mergeHeads, normHeads, repeatHeads, splitHeads } from './heads.js';
import type { ForwardOptions, LayerArgs, LayerOutput, LayerState, StateSpec, WeightSpec } from './seqLayer.js';
import { bias, type LinearOption, matrix, normScale, withNorms } from './weightSpecs.js';

export interface GatedLinearAttentionOptions extends LinearOption {
  /** Model width D. */
  hiddenSize: number;
  /** Width of all keys over D, default 0.5; `trunc(D * expandK)` must be a multiple of numHeads. */
  expandK: number;
  /** Width of all values over D, default 1. */
  expandV: number;
  /** Default 4. */
  numHeads: number;
  /** Heads of k, v and the gates, each shared by numHeads / numKvHeads heads of q in a row; null (default): numHeads. */
  numKvHeads: number | null;
  /** Applied to q and k; default null. The published 7B model uses relu. */
  featureMap: 'relu' | null;
  /** Short causal convolution and SiLU on q, k and v, default false. */
  useShortConv: boolean;
  /** Taps of the short convolution, default 4. */
  convSize: number;
  /** Default false. */
  convBias: boolean;
  /** Multiply the normed output by `gateFn` of a projection of the input, default true. */
  useOutputGate: boolean;
  /** Default 'swish', which is SiLU. */
  gateFn: 'swish' | 'sigmoid';
  /** Scale weights in the output norm, default true. */
  elementwiseAffine: boolean;
  /** Default 1e-5 (language models use 1e-6). */
  normEps: number;
  /** The gate's log is divided by this, default 16. */
  gateLogitNormalizer: number;
  /** Rank of the gate's projection, default 16. */
  gateLowRankDim: number;
  /** Least log decay per token; null (default): none. */
  clampMin: number | null;
  /** Tokens per chunk of the op; null (default): the op's own choice. */
  chunkSize: number | null;
  /** Form of the op, default 'auto'. */
  form: 'auto' | 'chunk' | 'recurrent' | 'parallel';
  /** Together with the layer's name, the start of the weights where no model gives it; default 0. */
  seed: number;
}

const defaults: Omit<GatedLinearAttentionOptions, 'hiddenSize'> = {
  expandK: 0.5,
  expandV: 1,
  numHeads: 4,
  numKvHeads: null,
  featureMap: null,
  useShortConv: false,
  convSize: 4,
  convBias: false,
  useOutputGate: true,
  gateFn: 'swish',
  elementwiseAffine: true,
  normEps: 1e-5,
  gateLogitNormalizer: 16,
  gateLowRankDim: 16,
  clampMin: null,
  chunkSize: null,
  form: 'auto',
  linear: 'dense',
  seed: 0,
};

/** [B, T, D] -> [B, T, D]; state `{ recurrent [B, H, K, V] }`, with short convolutions also `{ convQ, convK, convV [B, width, convSize] }`. */
export class GatedLinearAttention extends ConvolvedMixer<GatedLinearAttentionOptions> {
  static readonly className: string = 'GatedLinearAttention';
  readonly #keyDim: number;
  readonly #valueDim: number;
  readonly #kvHeads: number;

  /** @throws RangeError when an option is unknown or does not fit the others */
  constructor(args: LayerArgs<GatedLinearAttentionOptions>) {
    super(args, defaults);
    const { hiddenSize, expandK, expandV, numHeads, numKvHeads } = this.options;
    this.#keyDim = Math.trunc(hiddenSize * expandK);
    this.#valueDim = Math.trunc(hiddenSize * expandV);
    this.#kvHeads = numKvHeads ?? numHeads;
    this.#checkOptions();
  }

  #checkOptions(): void {
    const { numHeads, numKvHeads, featureMap, gateFn, normEps, gateLogitNormalizer, chunkSize, clampMin, form } =
      this.options;
    this.requirePositive('numHeads', 'convSize', 'gateLowRankDim');
    if (numKvHeads !== null) this.requirePositive('numKvHeads');
    if (chunkSize !== null) this.requirePositive('chunkSize');
    for (const [name, width] of Object.entries({ expandK: this.#keyDim, expandV: this.#valueDim }))
      this.require(
        width > 0 && width % numHeads === 0,
        `numHeads must divide trunc(hiddenSize * ${name}), got ${numHeads} and ${width}`,
      );
    this.require(numHeads % this.#kvHeads === 0, `numKvHeads must divide numHeads, got ${numKvHeads} and ${numHeads}`);
    if (featureMap !== null) checkOneOf('GatedLinearAttention', 'featureMap', featureMap, ['relu']);
    checkOneOf('GatedLinearAttention', 'gateFn', gateFn, ['swish', 'sigmoid']);
    checkOneOf('GatedLinearAttention', 'form', form, ['auto', 'chunk', 'recurrent', 'parallel']);
    this.require(normEps > 0, `normEps must be positive, got ${normEps}`);
    this.require(gateLogitNormalizer > 0, `gateLogitNormalizer must be positive, got ${gateLogitNormalizer}`);
    this.require(clampMin === null || clampMin <= 0, `clampMin bounds a log decay: it must be <= 0, got ${clampMin}`);
  }

  override weightSpecs(): Record<string, WeightSpec> {
    const { hiddenSize, numHeads, gateLowRankDim, useOutputGate, elementwiseAffine } = this.options;
    const { q: keyDim, k: kvKeyDim, v: kvValueDim } = this.#widths();
    const valueDim = this.#valueDim;
    return withNorms(this.options.linear, {
      'q_proj.weight': matrix(keyDim, hiddenSize),
      'k_proj.weight': matrix(kvKeyDim, hiddenSize),
      'v_proj.weight': matrix(kvValueDim, hiddenSize),
      ...this.convSpecs(this.#widths()),
      'gk_proj.0.weight': matrix(gateLowRankDim, hiddenSize),
      'gk_proj.1.weight': matrix(kvKeyDim, gateLowRankDim),
      'gk_proj.1.bias': bias(kvKeyDim, gateLowRankDim),
      ...(useOutputGate && { 'g_proj.weight': matrix(valueDim, hiddenSize) }),
      ...(elementwiseAffine && { [this.#normName]: normScale(valueDim / numHeads) }),
      'o_proj.weight': matrix(hiddenSize, valueDim),
    });
  }

  /** The published checkpoints name the norm after the kernel that fuses it with its gate. */
  get #normName(): string {
    const { useOutputGate, gateFn } = this.options;
    return useOutputGate && gateFn === 'swish' ? 'g_norm_swish_gate.weight' : 'g_norm.weight';
  }

  protected override run(x: tf.Tensor, state: LayerState | undefined, { cuSeqlens }: ForwardOptions): LayerOutput {
    const { numHeads, clampMin, gateLogitNormalizer, gateFn, normEps, chunkSize, form } = this.options;
    const shared = numHeads / this.#kvHeads;
    const next: LayerState = {};
    const names = ['q_proj', 'k_proj', 'v_proj', 'gk_proj.0', ...(this.options.useOutputGate ? ['g_proj'] : [])];
    const { q_proj: q, k_proj: k, v_proj: v, 'gk_proj.0': low, g_proj: outputGate } = this.projectAll(x, names);
    const feature = (name: 'q' | 'k' | 'v', p: tf.Tensor) => {
      const y = this.options.useShortConv ? this.convolve(name, p, state, next, cuSeqlens) : p;
      return this.options.featureMap && name !== 'v' ? tf.relu(y) : y;
    };
    const gate = this.project(low, 'gk_proj.1');
    const g = logSigmoidGate({ x: gate }, { normalizer: gateLogitNormalizer, clampMin: clampMin ?? undefined });
    const { o, finalState } = gla(
      {
        q: splitHeads(feature('q', q), numHeads),
        k: repeatHeads(feature('k', k), this.#kvHeads, shared),
        v: repeatHeads(feature('v', v), this.#kvHeads, shared),
        g: repeatHeads(g, this.#kvHeads, shared),
        initialState: state?.recurrent,
      },
      { chunkSize: chunkSize ?? undefined, form, cuSeqlens },
    );
    next.recurrent = finalState;
    const norm = { weight: this.weight(this.#normName), gate: outputGate };
    const normed = normHeads(o, norm, { eps: normEps, activation: gateFn === 'swish' ? 'silu' : 'sigmoid' });
    return { y: this.project(mergeHeads(normed), 'o_proj'), state: next };
  }

  protected override stateSpecs(batch: number): Record<string, StateSpec> {
    const { numHeads } = this.options;
    return {
      recurrent: { shape: [batch, numHeads, this.#keyDim / numHeads, this.#valueDim / numHeads] },
      ...this.convStates(batch, this.#widths()),
    };
  }

  #widths(): Widths {
    const [k, v] = [this.#keyDim, this.#valueDim].map((width) => (width / this.options.numHeads) * this.#kvHeads);
    return { q: this.#keyDim, k, v };
  }
}
tf.serialization.registerClass(GatedLinearAttention);
