/** A projection by ternary weights with its own norm (Zhu et al. 2024, https://arxiv.org/abs/2406.02528, Sec. 3.1). */
import * as tf from '@tensorflow/tfjs';
import { bitLinear } from '../chunked/index.js';
import { type LayerArgs, type LayerOutput, SeqLayer, type WeightSpec } from './seqLayer.js';
import { matrix, normScale } from './weightSpecs.js';

export interface BitLinearOptions {
  /** Width of the input. */
  hiddenSize: number;
  /** Width of the output; null (default): hiddenSize. */
  outputSize: number | null;
  /** Of the norm, default 1e-6. */
  eps: number;
  /** 8 (default): activations are rounded to int8 per token; null: they are not. */
  activationBits: 8 | null;
  /** Together with the layer's name, the start of the weights where no model gives it; default 0. */
  seed: number;
}

/** `y = bitLinear(x)`, see there. [B, T, hiddenSize] -> [B, T, outputSize]; stateless. The weight is kept and trained in full precision. */
export class BitLinear extends SeqLayer<BitLinearOptions> {
  static readonly className: string = 'BitLinear';

  /** @throws RangeError when an option is unknown or out of range */
  constructor(args: LayerArgs<BitLinearOptions>) {
    super(args, { outputSize: null, eps: 1e-6, activationBits: 8, seed: 0 });
    const { outputSize, eps, activationBits } = this.options;
    if (outputSize !== null) this.requirePositive('outputSize');
    this.require(eps > 0, `eps must be positive, got ${eps}`);
    this.require(
      activationBits === 8 || activationBits === null,
      `activationBits must be 8 or null, got ${activationBits}`,
    );
  }

  override weightSpecs(): Record<string, WeightSpec> {
    const { hiddenSize, outputSize } = this.options;
    return { weight: matrix(outputSize ?? hiddenSize, hiddenSize), 'norm.weight': normScale(hiddenSize) };
  }

  override computeOutputShape(inputShape: (number | null)[] | (number | null)[][]): (number | null)[] {
    const { hiddenSize, outputSize } = this.options;
    return [...super.computeOutputShape(inputShape).slice(0, -1), outputSize ?? hiddenSize];
  }

  protected override run(x: tf.Tensor): LayerOutput {
    const [weight, norm] = ['weight', 'norm.weight'].map((name) => this.need(name));
    const { eps, activationBits } = this.options;
    return { y: bitLinear({ x, weight, norm }, { eps, activationBits }), state: {} };
  }
}
tf.serialization.registerClass(BitLinear);
