/** The way into a model of sequences of numbers: each step's numbers to a vector of the model's width. */
import * as tf from '@tensorflow/tfjs';
import { linear } from '../chunked/index.js';
import { type LayerArgs, type LayerOutput, SeqLayer, type WeightSpec } from './seqLayer.js';
import { matrix, zeros } from './weightSpecs.js';

export interface InputProjectionOptions {
  /** Width D of a step's vector. */
  hiddenSize: number;
  /** Numbers at a step; default 1. */
  inputSize: number;
  /** Together with the layer's name, the start of the weights where no model gives it; default 0. */
  seed: number;
}

/** `y = x weight^T + bias`. [B, T, inputSize] -> [B, T, D]; stateless */
export class InputProjection extends SeqLayer<InputProjectionOptions> {
  static readonly className: string = 'InputProjection';

  constructor(args: LayerArgs<InputProjectionOptions>) {
    super(args, { inputSize: 1, seed: 0 });
    this.requirePositive('inputSize');
  }

  override weightSpecs(): Record<string, WeightSpec> {
    const { inputSize, hiddenSize } = this.options;
    const start: WeightSpec['init'] = (rng, size) => rng.normalArray(size, inputSize ** -0.5);
    return {
      weight: { ...matrix(hiddenSize, inputSize), init: start },
      bias: { shape: [hiddenSize], kind: 'bias', init: zeros },
    };
  }

  protected override run(x: tf.Tensor): LayerOutput {
    return { y: linear({ x, weight: this.need('weight'), bias: this.need('bias') }), state: {} };
  }

  protected override checkInput(shape: (number | null)[]): void {
    const { inputSize } = this.options;
    if (shape.length !== 3 || shape[2] !== inputSize)
      throw new RangeError(
        `${this.label}: input must have shape [B,T,${inputSize}], got [${shape.map((n) => n ?? '*')}]`,
      );
  }

  protected override buildInput(): tf.Tensor {
    return tf.zeros([1, 1, this.options.inputSize]);
  }

  override computeOutputShape(inputShape: (number | null)[] | (number | null)[][]): (number | null)[] {
    return [...super.computeOutputShape(inputShape).slice(0, 2), this.options.hiddenSize];
  }
}
tf.serialization.registerClass(InputProjection);
