/**
 * Kimi Delta Attention (Kimi Linear 2025, https://arxiv.org/abs/2510.26692, Sec. 4). Per head `S_t = (I - beta_t k_t k_t^T) diag(exp g_t)
 * S_{t-1} + beta_t k_t v_t^T`, `o_t = K^-0.5 S_t^T q_t`, with q and k of length 1 and a decay per key channel from a projection of low
 * rank; the output is RMS-normed per head, gated by a sigmoid and projected back (eq. 10).
 */
import * as tf from '@tensorflow/tfjs';
import { checkOneOf } from '../chunked/check.js';
import { gatedRmsNorm, kda, kdaGate, l2Norm, linear, linearAll } from '../chunked/index.js';
import { ConvolvedMixer, type Projection, type Widths } from './convolvedMixer.js';
import { mergeHeads, splitHeads } from './heads.js';
import { logRate, stepBias, writeStrength } from './recurrentGates.js';
import type { ForwardOptions, LayerArgs, LayerOutput, LayerState, StateSpec, WeightSpec } from './seqLayer.js';
import { bias, matrix, normScale } from './weightSpecs.js';

export interface KimiDeltaAttentionOptions {
  /** Model width D. */
  hiddenSize: number;
  /** Heads of q and k, default 16. */
  numHeads: number;
  /** Heads of v, the decay and the write strength, a multiple of numHeads; null (default): numHeads. */
  numVHeads: number | null;
  /** Key width of a head K, default 128. */
  headDim: number;
  /** Value width of a head V over K, default 1; `headDim * expandV` must be whole. */
  expandV: number;
  /** Short causal convolution before the SiLU on q, k and v, default true. */
  useShortConv: boolean;
  /** Taps of the short convolution, default 4. */
  convSize: number;
  /** Default false. */
  convBias: boolean;
  /** Write strengths up to 2, so that a transition may have a negative eigenvalue (https://arxiv.org/abs/2411.12537); default false. */
  allowNegEigval: boolean;
  /** Lowest log decay of a token, in [-5, 0): the bounded gate. null (default): the unbounded one. */
  lowerBound: number | null;
  /** Start with a rate of 1 in every head, as bounded gates do; needs lowerBound. Default false. */
  safeGate: boolean;
  /** Bias on the output gate, default true (the published Kimi Linear has none). */
  gateBias: boolean;
  /** Default 1e-5 (language models use 1e-6). */
  normEps: number;
  /** Tokens per chunk of the plain form; null (default): the op's own choice. */
  chunkSize: number | null;
  /** Form of the op, default 'auto'. */
  form: 'auto' | 'chunk' | 'recurrent';
  /** Together with the layer's name, the start of the weights where no model gives it; default 0. */
  seed: number;
}

const defaults: Omit<KimiDeltaAttentionOptions, 'hiddenSize'> = {
  numHeads: 16,
  numVHeads: null,
  headDim: 128,
  expandV: 1,
  useShortConv: true,
  convSize: 4,
  convBias: false,
  allowNegEigval: false,
  lowerBound: null,
  safeGate: false,
  gateBias: true,
  normEps: 1e-5,
  chunkSize: null,
  form: 'auto',
  seed: 0,
};

/** [B, T, D] -> [B, T, D]; state `{ recurrent [B, HV, K, V] }`, with short convolutions also `{ convQ, convK, convV [B, width, convSize] }`. */
export class KimiDeltaAttention extends ConvolvedMixer<KimiDeltaAttentionOptions> {
  static readonly className: string = 'KimiDeltaAttention';
  readonly #valueHeads: number;
  readonly #valueDim: number;

  /** @throws RangeError when an option is unknown or does not fit the others */
  constructor(args: LayerArgs<KimiDeltaAttentionOptions>) {
    super(args, defaults);
    const { numHeads, numVHeads, headDim, expandV } = this.options;
    this.#valueHeads = numVHeads ?? numHeads;
    this.#valueDim = headDim * expandV;
    this.#checkOptions();
  }

  #checkOptions(): void {
    const { numHeads, numVHeads, headDim, expandV, lowerBound, safeGate, normEps, chunkSize, form } = this.options;
    this.requirePositive('numHeads', 'headDim', 'convSize');
    if (numVHeads !== null) this.requirePositive('numVHeads');
    if (chunkSize !== null) this.requirePositive('chunkSize');
    const [HV, V] = [this.#valueHeads, this.#valueDim];
    this.require(HV % numHeads === 0, `numVHeads must be a multiple of numHeads, got ${numVHeads} and ${numHeads}`);
    this.require(
      Number.isInteger(V) && V > 0,
      `headDim * expandV must be a positive integer, got ${headDim} * ${expandV}`,
    );
    const bounded = lowerBound === null || (lowerBound >= -5 && lowerBound < 0);
    this.require(bounded, `lowerBound must be in [-5, 0), or null, got ${lowerBound}`);
    this.require(!safeGate || lowerBound !== null, 'safeGate needs a lowerBound (-5 is usual), got none');
    this.require(normEps > 0, `normEps must be positive, got ${normEps}`);
    checkOneOf('KimiDeltaAttention', 'form', form, ['auto', 'chunk', 'recurrent']);
  }

  override weightSpecs(): Record<string, WeightSpec> {
    const { hiddenSize, headDim, gateBias, safeGate } = this.options;
    const { q, v } = this.#widths();
    const [HV, V] = [this.#valueHeads, this.#valueDim];
    return {
      'q_proj.weight': matrix(q, hiddenSize),
      'k_proj.weight': matrix(q, hiddenSize),
      'v_proj.weight': matrix(v, hiddenSize),
      ...this.convSpecs(this.#widths()),
      A_log: logRate(HV, safeGate ? undefined : 1),
      dt_bias: stepBias(HV * headDim),
      'f_proj.0.weight': matrix(V, hiddenSize),
      'f_proj.1.weight': matrix(HV * headDim, V),
      'b_proj.weight': matrix(HV, hiddenSize),
      'g_proj.0.weight': matrix(V, hiddenSize),
      'g_proj.1.weight': matrix(v, V),
      ...(gateBias && { 'g_proj.1.bias': bias(v, V) }),
      'o_norm.weight': normScale(V),
      'o_proj.weight': matrix(hiddenSize, v),
    };
  }

  protected override run(x: tf.Tensor, state: LayerState | undefined, { cuSeqlens }: ForwardOptions): LayerOutput {
    const { numHeads, allowNegEigval, lowerBound, chunkSize, form } = this.options;
    const HV = this.#valueHeads;
    const next: LayerState = {};
    const [q, k, v, f, b, gate] = linearAll({ x, weights: PROJECTIONS.map((name) => this.need(`${name}.weight`)) });
    const heads = (name: Projection, p: tf.Tensor) =>
      splitHeads(this.mixLocally(name, p, state, next, cuSeqlens), name === 'v' ? HV : numHeads);
    const decay = {
      f: splitHeads(linear({ x: f, weight: this.need('f_proj.1.weight') }), HV),
      aLog: this.need('A_log'),
      dtBias: this.need('dt_bias'),
    };
    const { o, finalState } = kda(
      {
        q: l2Norm({ x: heads('q', q) }),
        k: l2Norm({ x: heads('k', k) }),
        v: heads('v', v),
        g: kdaGate(decay, { lowerBound: lowerBound ?? undefined }),
        beta: writeStrength(b, allowNegEigval),
        initialState: state?.recurrent,
      },
      { chunkSize: chunkSize ?? undefined, form, cuSeqlens },
    );
    next.recurrent = finalState;
    const y = linear({ x: mergeHeads(this.#normAndGate(o, gate)), weight: this.need('o_proj.weight') });
    return { y, state: next };
  }

  /** RMS norm per head times the sigmoid of the gate, whose first projection came in (eq. 10). */
  #normAndGate(o: tf.Tensor, low: tf.Tensor): tf.Tensor {
    const projected = linear({
      x: low,
      weight: this.need('g_proj.1.weight'),
      bias: this.weight('g_proj.1.bias'),
    });
    const gate = splitHeads(projected, this.#valueHeads);
    return gatedRmsNorm(
      { x: o, gate, weight: this.need('o_norm.weight') },
      { eps: this.options.normEps, activation: 'sigmoid' },
    );
  }

  protected override stateSpecs(batch: number): Record<string, StateSpec> {
    const { headDim } = this.options;
    return {
      recurrent: { shape: [batch, this.#valueHeads, headDim, this.#valueDim] },
      ...this.convStates(batch, this.#widths()),
    };
  }

  #widths(): Widths {
    const { numHeads, headDim } = this.options;
    return { q: numHeads * headDim, k: numHeads * headDim, v: this.#valueHeads * this.#valueDim };
  }
}
tf.serialization.registerClass(KimiDeltaAttention);

/** All that the input is multiplied by. */
const PROJECTIONS = ['q_proj', 'k_proj', 'v_proj', 'f_proj.0', 'b_proj', 'g_proj.0'] as const;
