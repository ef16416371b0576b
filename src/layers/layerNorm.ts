/** Layer norm over the channels (Ba, Kiros & Hinton 2016, https://arxiv.org/abs/1607.06450). */
import * as tf from '@tensorflow/tfjs';
import { layerNorm } from '../chunked/index.js';
import { type LayerArgs, type LayerOutput, SeqLayer, type WeightSpec } from './seqLayer.js';
import { normScale, zeros } from './weightSpecs.js';

export interface LayerNormOptions {
  /** Width of the last axis. */
  hiddenSize: number;
  /** Default 1e-5. */
  eps: number;
}

/** `y = (x - mean) * rsqrt(variance + eps) * weight + bias`. [B, T, D] -> [B, T, D]; stateless */
export class LayerNorm extends SeqLayer<LayerNormOptions> {
  static readonly className: string = 'LayerNorm';

  constructor(args: LayerArgs<LayerNormOptions>) {
    super(args, { eps: 1e-5 });
    this.require(this.options.eps > 0, `eps must be positive, got ${this.options.eps}`);
  }

  override weightSpecs(): Record<string, WeightSpec> {
    const { hiddenSize } = this.options;
    return { weight: normScale(hiddenSize), bias: { shape: [hiddenSize], kind: 'bias', init: zeros } };
  }

  protected override run(x: tf.Tensor): LayerOutput {
    const [weight, bias] = ['weight', 'bias'].map((name) => this.need(name));
    return { y: layerNorm({ x, weight, bias }, { eps: this.options.eps }), state: {} };
  }
}
tf.serialization.registerClass(LayerNorm);
