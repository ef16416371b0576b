/** What the layers of the delta rule share: projections, short convolutions, write strengths, the norm of the output and the state. */
import type * as tf from '@tensorflow/tfjs';
import { checkOneOf } from '../chunked/check.js';
import type { DeltaOptions, DeltaOutput, DeltaRuleInputs } from '../chunked/index.js';
import { l2Norm } from '../chunked/index.js';
import {
  ConvolvedMixer,
  type Projected,
  type Projection,
  type ShortConvOptions,
  type Widths,
} from './convolvedMixer.js';
import { mergeHeads, normHeads, splitHeads } from './heads.js';
import { writeStrength } from './recurrentGates.js';
import type { ForwardOptions, LayerArgs, LayerOutput, LayerState, StateSpec, WeightSpec } from './seqLayer.js';
import { matrix, normScale, withNorms } from './weightSpecs.js';

export interface DeltaLayerOptions extends ShortConvOptions {
  /**
   * Write strengths in (0, 2) instead of (0, 1), default false: a key's eigenvalue of the transition, 1 - beta, may then be negative,
   * which tracking a state such as parity needs (Grazzi et al. 2024, https://arxiv.org/abs/2411.12537).
   */
  allowNegEigval: boolean;
  /** Of the output norm, default 1e-5 (language models use 1e-6). */
  normEps: number;
  /** Tokens per chunk of the op's plain form; null (default): the op's own choice. */
  chunkSize: number | null;
  /** Form of the op, default 'auto'. */
  form: 'auto' | 'chunk' | 'recurrent';
  /** Together with the layer's name, the start of the weights where no model gives it; default 0. */
  seed: number;
}

export const deltaLayerDefaults: Omit<DeltaLayerOptions, 'hiddenSize'> = {
  useShortConv: true,
  convSize: 4,
  convBias: false,
  allowNegEigval: false,
  normEps: 1e-5,
  chunkSize: null,
  form: 'auto',
  linear: 'dense',
  seed: 0,
};

/** H heads of q and k, HV of v, K and V channels in each. */
export interface DeltaSizes {
  H: number;
  HV: number;
  K: number;
  V: number;
}

/**
 * q, k = l2norm(silu(conv(W x))) per head, v = silu(conv(W x)), beta = sigmoid(W x), one for each head of v; a delta rule over them; then
 * `o_norm` per head, times a gate where the layer has one, and `o_proj`. A subclass gives sizes, decays and gate.
 */
export abstract class DeltaLayer<O extends DeltaLayerOptions> extends ConvolvedMixer<O> {
  protected abstract sizes(): DeltaSizes;

  /** The other matrices that x is multiplied by [width, D], by name without `.weight`. */
  protected abstract projections(): Record<string, number>;

  /** The op, with the decays made from the projections. */
  protected abstract mix(inputs: DeltaRuleInputs, projected: Projected, options: DeltaOptions): DeltaOutput;

  /** What the normed output is multiplied by, before its activation [B, T, HV * V]; undefined: nothing. */
  protected abstract outputGate(projected: Projected): tf.Tensor | undefined;

  /** Activation of the output gate. */
  protected abstract readonly gateActivation: 'silu' | 'sigmoid';

  protected constructor(args: LayerArgs<O>, defaults: Omit<O, 'hiddenSize'>) {
    super(args, defaults);
    const { normEps, chunkSize, form } = this.options;
    this.requirePositive('convSize');
    if (chunkSize !== null) this.requirePositive('chunkSize');
    checkOneOf(this.getClassName(), 'form', form, ['auto', 'chunk', 'recurrent']);
    this.require(normEps > 0, `normEps must be positive, got ${normEps}`);
  }

  override weightSpecs(): Record<string, WeightSpec> {
    const { hiddenSize } = this.options;
    const { HV, V } = this.sizes();
    const projections = Object.entries(this.#projections());
    return withNorms(this.options.linear, {
      ...Object.fromEntries(projections.map(([name, width]) => [`${name}.weight`, matrix(width, hiddenSize)])),
      ...this.convSpecs(this.#widths()),
      'o_norm.weight': normScale(V),
      'o_proj.weight': matrix(hiddenSize, HV * V),
    });
  }

  protected override run(x: tf.Tensor, state: LayerState | undefined, { cuSeqlens }: ForwardOptions): LayerOutput {
    const { allowNegEigval, normEps: eps, chunkSize, form } = this.options;
    const { H, HV } = this.sizes();
    const next: LayerState = {};
    const projected = this.projectAll(x, Object.keys(this.#projections()));
    const head = (name: Projection, heads: number) =>
      splitHeads(this.mixLocally(name, projected[`${name}_proj`], state, next, cuSeqlens), heads);
    const inputs = {
      q: l2Norm({ x: head('q', H) }),
      k: l2Norm({ x: head('k', H) }),
      v: head('v', HV),
      beta: writeStrength(projected.b_proj, allowNegEigval),
      initialState: state?.recurrent,
    };
    const { o, finalState } = this.mix(inputs, projected, { chunkSize: chunkSize ?? undefined, form, cuSeqlens });
    next.recurrent = finalState;
    const norm = { weight: this.need('o_norm.weight'), gate: this.outputGate(projected) };
    const normed = normHeads(o, norm, { eps, activation: this.gateActivation });
    return { y: this.project(mergeHeads(normed), 'o_proj'), state: next };
  }

  protected override stateSpecs(batch: number): Record<string, StateSpec> {
    const { HV, K, V } = this.sizes();
    return { recurrent: { shape: [batch, HV, K, V] }, ...this.convStates(batch, this.#widths()) };
  }

  #widths(): Widths {
    const { H, HV, K, V } = this.sizes();
    return { q: H * K, k: H * K, v: HV * V };
  }

  #projections(): Record<string, number> {
    const { q, k, v } = this.#widths();
    return { q_proj: q, k_proj: k, v_proj: v, b_proj: this.sizes().HV, ...this.projections() };
  }
}
