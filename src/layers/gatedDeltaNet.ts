/**
 * Gated DeltaNet (Yang et al. 2024, https://arxiv.org/abs/2412.06464): the delta rule on a state that forgets, one rate per head.
 * `R_t = exp(g_t) S_{t-1}`, `S_t = R_t + k_t (beta_t (v_t - R_t^T k_t))^T`, `o_t = K^-0.5 * S_t^T q_t`, with
 * `g = -exp(A_log) * softplus(a_proj x + dt_bias)`.
 */
import * as tf from '@tensorflow/tfjs';
import {
  type DeltaOptions,
  type DeltaOutput,
  type DeltaRuleInputs,
  gatedDeltaRule,
  kdaGate,
} from '../chunked/index.js';
import type { Projected } from './convolvedMixer.js';
import { deltaLayerDefaults } from './deltaLayer.js';
import { GatedDeltaLayer, type GatedDeltaOptions } from './gatedDeltaLayer.js';
import { logRate, stepBias } from './recurrentGates.js';
import type { LayerArgs, WeightSpec } from './seqLayer.js';

/** `headDim` 256, `expandV` 2, `numHeads` 6 unless given. */
export interface GatedDeltaNetOptions extends GatedDeltaOptions {
  /** Multiply the normed output by the SiLU of a projection of the input, default true. */
  useOutputGate: boolean;
}

const defaults: Omit<GatedDeltaNetOptions, 'hiddenSize'> = {
  numHeads: 6,
  numVHeads: null,
  headDim: 256,
  expandV: 2,
  useOutputGate: true,
  ...deltaLayerDefaults,
};

/** [B, T, D] -> [B, T, D]; state `{ recurrent [B, HV, K, V] }`, with short convolutions also `{ convQ, convK, convV [B, width, convSize] }`. */
export class GatedDeltaNet extends GatedDeltaLayer<GatedDeltaNetOptions> {
  static readonly className: string = 'GatedDeltaNet';
  protected override readonly gateActivation = 'silu';

  /** @throws RangeError when an option is unknown or does not fit the others */
  constructor(args: LayerArgs<GatedDeltaNetOptions>) {
    super(args, defaults);
  }

  protected override projections(): Record<string, number> {
    const { HV, V } = this.sizes();
    return { a_proj: HV, ...(this.options.useOutputGate && { g_proj: HV * V }) };
  }

  override weightSpecs(): Record<string, WeightSpec> {
    const { HV } = this.sizes();
    return { ...super.weightSpecs(), A_log: logRate(HV, 0), dt_bias: stepBias(HV) };
  }

  protected override mix(inputs: DeltaRuleInputs, { a_proj }: Projected, options: DeltaOptions): DeltaOutput {
    const f = tf.expandDims(a_proj, 3); // [B, T, HV, 1]: one channel per head
    const g = kdaGate({ f, aLog: this.need('A_log'), dtBias: this.need('dt_bias') });
    return gatedDeltaRule({ ...inputs, g: tf.squeeze(g, [3]) }, options);
  }

  protected override outputGate({ g_proj }: Projected): tf.Tensor | undefined {
    return g_proj;
  }
}
tf.serialization.registerClass(GatedDeltaNet);
