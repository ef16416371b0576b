/**
 * DeltaNet (Schlag et al. 2021, https://arxiv.org/abs/2102.11174; Yang et al. 2024, https://arxiv.org/abs/2406.06484): a key's value is
 * replaced, not added to. Per head `S_t = S_{t-1} + k_t (beta_t (v_t - S_{t-1}^T k_t))^T`, `o_t = K^-0.5 * S_t^T q_t`.
 */
import * as tf from '@tensorflow/tfjs';
import { type DeltaOptions, type DeltaOutput, type DeltaRuleInputs, deltaRule } from '../chunked/index.js';
import type { Projected } from './convolvedMixer.js';
import { DeltaLayer, type DeltaLayerOptions, type DeltaSizes, deltaLayerDefaults } from './deltaLayer.js';
import type { LayerArgs } from './seqLayer.js';

export interface DeltaNetOptions extends DeltaLayerOptions {
  /** Width of all keys over D, default 1; `trunc(D * expandK)` must be a multiple of numHeads. */
  expandK: number;
  /** Width of all values over D, default 1. */
  expandV: number;
  /** Default 4. */
  numHeads: number;
  /** Multiply the normed output by the SiLU of a projection of the input, default false. */
  useOutputGate: boolean;
}

/** [B, T, D] -> [B, T, D]; state `{ recurrent [B, H, K, V] }`, with short convolutions also `{ convQ, convK, convV [B, width, convSize] }`. */
export class DeltaNet extends DeltaLayer<DeltaNetOptions> {
  static readonly className: string = 'DeltaNet';
  protected override readonly gateActivation = 'silu';

  /** @throws RangeError when an option is unknown or does not fit the others */
  constructor(args: LayerArgs<DeltaNetOptions>) {
    super(args, { numHeads: 4, expandK: 1, expandV: 1, useOutputGate: false, ...deltaLayerDefaults });
    const { numHeads } = this.options;
    this.requirePositive('numHeads');
    for (const name of ['expandK', 'expandV'] as const) {
      const width = this.#width(name);
      this.require(
        width > 0 && width % numHeads === 0,
        `numHeads must divide trunc(hiddenSize * ${name}), got ${numHeads} and ${width}`,
      );
    }
  }

  #width(expand: 'expandK' | 'expandV'): number {
    return Math.trunc(this.options.hiddenSize * this.options[expand]);
  }

  protected override sizes(): DeltaSizes {
    const { numHeads: H } = this.options;
    return { H, HV: H, K: this.#width('expandK') / H, V: this.#width('expandV') / H };
  }

  protected override projections(): Record<string, number> {
    return this.options.useOutputGate ? { g_proj: this.#width('expandV') } : {};
  }

  protected override mix(inputs: DeltaRuleInputs, _: Projected, options: DeltaOptions): DeltaOutput {
    return deltaRule(inputs, options);
  }

  protected override outputGate({ g_proj }: Projected): tf.Tensor | undefined {
    return g_proj;
  }
}
tf.serialization.registerClass(DeltaNet);
