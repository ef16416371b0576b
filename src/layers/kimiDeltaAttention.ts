/**
 * Kimi Delta Attention (Kimi Linear 2025, https://arxiv.org/abs/2510.26692, Sec. 3 and eq. 1 and 10): the delta rule on a state that
 * forgets, one rate per key channel. `R_t = diag(exp(g_t)) S_{t-1}`, `S_t = R_t + k_t (beta_t (v_t - R_t^T k_t))^T`,
 * `o_t = K^-0.5 * S_t^T q_t`; g comes from `kdaGate` over a projection of low rank, and the output gate is a sigmoid.
 */
import * as tf from '@tensorflow/tfjs';
import { type DeltaOptions, type DeltaOutput, type DeltaRuleInputs, kda, kdaGate } from '../chunked/index.js';
import type { Projected } from './convolvedMixer.js';
import { deltaLayerDefaults } from './deltaLayer.js';
import { GatedDeltaLayer, type GatedDeltaOptions } from './gatedDeltaLayer.js';
import { splitHeads } from './heads.js';
import { logRate, stepBias } from './recurrentGates.js';
import type { LayerArgs, WeightSpec } from './seqLayer.js';
import { bias, matrix, withNorms } from './weightSpecs.js';

/** `headDim` 128, `expandV` 1, `numHeads` 16 unless given. */
export interface KimiDeltaAttentionOptions extends GatedDeltaOptions {
  /** Least log decay per token, in [-5, 0): then `g = lowerBound * sigmoid(exp(A_log) * z)`. null (default): `-exp(A_log) * softplus(z)`. */
  lowerBound: number | null;
  /** Start with a rate of 1 in every head, as bounded gates do; needs `lowerBound`. Default false. */
  safeGate: boolean;
  /** Bias in the output gate's projection, default true; the published Kimi Linear models have none. */
  gateBias: boolean;
}

const defaults: Omit<KimiDeltaAttentionOptions, 'hiddenSize'> = {
  numHeads: 16,
  numVHeads: null,
  headDim: 128,
  expandV: 1,
  lowerBound: null,
  safeGate: false,
  gateBias: true,
  ...deltaLayerDefaults,
};

/** [B, T, D] -> [B, T, D]; state `{ recurrent [B, HV, K, V] }`, with short convolutions also `{ convQ, convK, convV [B, width, convSize] }`. */
export class KimiDeltaAttention extends GatedDeltaLayer<KimiDeltaAttentionOptions> {
  static readonly className: string = 'KimiDeltaAttention';
  protected override readonly gateActivation = 'sigmoid';

  /** @throws RangeError when an option is unknown or does not fit the others */
  constructor(args: LayerArgs<KimiDeltaAttentionOptions>) {
    super(args, defaults);
    const { lowerBound, safeGate } = this.options;
    const bounded = lowerBound === null || (lowerBound >= -5 && lowerBound < 0);
    this.require(bounded, `lowerBound must be in [-5, 0), or null, got ${lowerBound}`);
    this.require(!safeGate || lowerBound !== null, 'safeGate needs a lowerBound (-5 is usual), got none');
  }

  protected override projections(): Record<string, number> {
    const { V } = this.sizes();
    return { 'f_proj.0': V, 'g_proj.0': V };
  }

  override weightSpecs(): Record<string, WeightSpec> {
    const { HV, K, V } = this.sizes();
    const { safeGate, gateBias } = this.options;
    return withNorms(this.options.linear, {
      ...super.weightSpecs(),
      A_log: logRate(HV, safeGate ? undefined : 1),
      dt_bias: stepBias(HV * K),
      'f_proj.1.weight': matrix(HV * K, V),
      'g_proj.1.weight': matrix(HV * V, V),
      ...(gateBias && { 'g_proj.1.bias': bias(HV * V, V) }),
    });
  }

  protected override mix(inputs: DeltaRuleInputs, projected: Projected, options: DeltaOptions): DeltaOutput {
    const f = this.project(projected['f_proj.0'], 'f_proj.1');
    const g = kdaGate(
      { f: splitHeads(f, this.sizes().HV), aLog: this.need('A_log'), dtBias: this.need('dt_bias') },
      { lowerBound: this.options.lowerBound ?? undefined },
    );
    return kda({ ...inputs, g }, options);
  }

  protected override outputGate(projected: Projected): tf.Tensor {
    return this.project(projected['g_proj.0'], 'g_proj.1');
  }
}
tf.serialization.registerClass(KimiDeltaAttention);
