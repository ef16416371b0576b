/** Depthwise causal convolution over a few tokens, the local mixer in front of linear attention. */
import * as tf from '@tensorflow/tfjs';
import { checkOneOf } from '../chunked/check.js';
import { causalConv1d } from '../chunked/index.js';
import {
  type ForwardOptions,
  type LayerArgs,
  type LayerOutput,
  type LayerState,
  SeqLayer,
  type StateSpec,
  type WeightSpec,
} from './seqLayer.js';
import { bias, convTaps } from './weightSpecs.js';

export interface ShortConvolutionOptions {
  /** Channels D. */
  hiddenSize: number;
  /** Taps W, default 4. */
  convSize: number;
  /** Default false. */
  convBias: boolean;
  /** Default 'silu'. */
  activation: 'silu' | null;
  /** Together with the layer's name, the start of the weights where no model gives it; default 0. */
  seed: number;
}

/** `y_t = silu(sum_j w_j * x_{t-W+1+j} + b)` per channel. [B, T, D] -> [B, T, D]; state `{ conv [B, D, W] }`, the last W inputs. */
export class ShortConvolution extends SeqLayer<ShortConvolutionOptions> {
  static readonly className: string = 'ShortConvolution';

  constructor(args: LayerArgs<ShortConvolutionOptions>) {
    super(args, { convSize: 4, convBias: false, activation: 'silu', seed: 0 });
    this.requirePositive('convSize');
    const { activation } = this.options;
    if (activation !== null) checkOneOf('ShortConvolution', 'activation', activation, ['silu']);
  }

  override weightSpecs(): Record<string, WeightSpec> {
    const { hiddenSize, convSize, convBias } = this.options;
    return { weight: convTaps(hiddenSize, convSize), ...(convBias && { bias: bias(hiddenSize, convSize) }) };
  }

  protected override run(x: tf.Tensor, state: LayerState | undefined, { cuSeqlens }: ForwardOptions): LayerOutput {
    const { hiddenSize, convSize, activation } = this.options;
    const weight = tf.reshape(this.need('weight'), [hiddenSize, convSize]);
    const { o, finalState } = causalConv1d(
      { x, weight, bias: this.weight('bias'), initialState: state?.conv },
      { activation, cuSeqlens },
    );
    return { y: o, state: { conv: finalState } };
  }

  protected override stateSpecs(batch: number): Record<string, StateSpec> {
    return { conv: { shape: [batch, this.options.hiddenSize, this.options.convSize] } };
  }
}
tf.serialization.registerClass(ShortConvolution);
