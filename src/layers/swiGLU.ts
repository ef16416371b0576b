/** The channel mixer of the language models: SwiGLU (Shazeer 2020, https://arxiv.org/abs/2002.05202, eq. 6), without biases. */
import * as tf from '@tensorflow/tfjs';
import { linear, linearAll, swiGlu } from '../chunked/index.js';
import { type LayerArgs, type LayerOutput, SeqLayer, type WeightSpec } from './seqLayer.js';
import { type LinearOption, matrix, publishedWidth, withNorms } from './weightSpecs.js';

export interface SwiGLUOptions extends LinearOption {
  hiddenSize: number;
  /** Width between the projections; null (default): 256 * ceil(trunc(hiddenSize * 8 / 3) / 256). */
  intermediateSize: number | null;
  /** Together with the layer's name, the start of the weights where no model gives it; default 0. */
  seed: number;
}

/** `y = down(silu(gate(x)) * up(x))`. [B, T, D] -> [B, T, D]; stateless */
export class SwiGLU extends SeqLayer<SwiGLUOptions> {
  static readonly className: string = 'SwiGLU';

  constructor(args: LayerArgs<SwiGLUOptions>) {
    super(args, { intermediateSize: null, linear: 'dense', seed: 0 });
    if (this.options.intermediateSize !== null) this.requirePositive('intermediateSize');
  }

  override weightSpecs(): Record<string, WeightSpec> {
    const { hiddenSize, intermediateSize } = this.options;
    const inner = intermediateSize ?? publishedWidth(hiddenSize);
    return withNorms(this.options.linear, {
      'gate_proj.weight': matrix(inner, hiddenSize),
      'up_proj.weight': matrix(inner, hiddenSize),
      'down_proj.weight': matrix(hiddenSize, inner),
    });
  }

  protected override run(x: tf.Tensor): LayerOutput {
    const { gate_proj: gate, up_proj: up } = this.projectAll(x, ['gate_proj', 'up_proj']);
    return { y: this.project(swiGlu({ gate, up }), 'down_proj'), state: {} };
  }
}
tf.serialization.registerClass(SwiGLU);

/** down(silu(gate(x)) * up(x)) for weights [I, D], [I, D] and [D, I]. */
export function gatedUnit(x: tf.Tensor, weights: Record<'gate' | 'up' | 'down', tf.Tensor>): tf.Tensor {
  const [gate, up] = linearAll({ x, weights: [weights.gate, weights.up] });
  return linear({ x: swiGlu({ gate, up }), weight: weights.down });
}
