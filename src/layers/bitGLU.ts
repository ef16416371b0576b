/** The channel mixer of MatMul-free language models (Zhu et al. 2024, https://arxiv.org/abs/2406.02528, Sec. 3.3.2): a gated unit of ternary weights. */
import * as tf from '@tensorflow/tfjs';
import { swiGlu } from '../chunked/index.js';
import { type LayerArgs, type LayerOutput, SeqLayer, type WeightSpec } from './seqLayer.js';
import { matrix, publishedWidth, withNorms } from './weightSpecs.js';

export interface BitGLUOptions {
  hiddenSize: number;
  /** Width between the projections; null (default): 256 * ceil(trunc(hiddenSize * 8 / 3) / 256). */
  intermediateSize: number | null;
  /** Together with the layer's name, the start of the weights where no model gives it; default 0. */
  seed: number;
}

/** `[gate | up] = gate_proj(x)` in one matrix, `y = down_proj(silu(gate) * up)`, both ternary. [B, T, D] -> [B, T, D]; stateless */
export class BitGLU extends SeqLayer<BitGLUOptions> {
  static readonly className: string = 'BitGLU';

  constructor(args: LayerArgs<BitGLUOptions>) {
    super(args, { intermediateSize: null, seed: 0 });
    if (this.options.intermediateSize !== null) this.requirePositive('intermediateSize');
  }

  override weightSpecs(): Record<string, WeightSpec> {
    const { hiddenSize, intermediateSize } = this.options;
    const inner = intermediateSize ?? publishedWidth(hiddenSize);
    return withNorms('bit', {
      'gate_proj.weight': matrix(2 * inner, hiddenSize),
      'down_proj.weight': matrix(hiddenSize, inner),
    });
  }

  protected override run(x: tf.Tensor): LayerOutput {
    return { y: this.project(swiGlu({ x: this.project(x, 'gate_proj') }), 'down_proj'), state: {} };
  }
}
tf.serialization.registerClass(BitGLU);
