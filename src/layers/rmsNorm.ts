/** Root mean square norm over the channels (Zhang & Sennrich 2019, https://arxiv.org/abs/1910.07467). */
import * as tf from '@tensorflow/tfjs';
import { rmsNorm } from '../chunked/index.js';
import { type LayerArgs, type LayerOutput, SeqLayer, type WeightSpec } from './seqLayer.js';
import { normScale } from './weightSpecs.js';

export interface RMSNormOptions {
  /** Width of the last axis. */
  hiddenSize: number;
  /** Default 1e-5 (language models use 1e-6). */
  eps: number;
  /** Multiply by a scale per channel, default true. */
  elementwiseAffine: boolean;
}

/** `y = x * rsqrt(mean(x^2) + eps) * weight`. [B, T, D] -> [B, T, D]; stateless */
export class RMSNorm extends SeqLayer<RMSNormOptions> {
  static readonly className: string = 'RMSNorm';

  constructor(args: LayerArgs<RMSNormOptions>) {
    super(args, { eps: 1e-5, elementwiseAffine: true });
    this.require(this.options.eps > 0, `eps must be positive, got ${this.options.eps}`);
  }

  override weightSpecs(): Record<string, WeightSpec> {
    return this.options.elementwiseAffine ? { weight: normScale(this.options.hiddenSize) } : {};
  }

  protected override run(x: tf.Tensor): LayerOutput {
    return { y: rmsNorm({ x, weight: this.weight('weight') }, { eps: this.options.eps }), state: {} };
  }
}
tf.serialization.registerClass(RMSNorm);
