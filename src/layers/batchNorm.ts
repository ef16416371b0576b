/** Batch norm over the channels (Ioffe & Szegedy 2015, https://arxiv.org/abs/1502.03167), as in the public S5 code. */
import * as tf from '@tensorflow/tfjs';
import { batchNorm } from '../chunked/index.js';
import {
  type ForwardOptions,
  type LayerArgs,
  type LayerOutput,
  type LayerState,
  SeqLayer,
  type WeightSpec,
} from './seqLayer.js';
import { normScale, zeros } from './weightSpecs.js';

export interface BatchNormOptions {
  /** Width of the last axis. */
  hiddenSize: number;
  /** Default 1e-5. */
  eps: number;
  /** Share of the running statistics that a training step keeps: running = momentum * running + (1 - momentum) * batch; default 0.95. */
  momentum: number;
}

/**
 * `y = (x - mean) * rsqrt(variance + eps) * weight + bias`, mean and biased variance per channel: over batch and time where `forward` is
 * given `training`, else the running ones. [B, T, D] -> [B, T, D]; stateless.
 *
 * In training the gradients of `running_mean` and `running_var` are the statistics of the batch, and training moves them (see
 * `WeightSpec.runningRate`); no optimizer may.
 */
export class BatchNorm extends SeqLayer<BatchNormOptions> {
  static readonly className: string = 'BatchNorm';

  /** @throws RangeError unless eps > 0 and 0 <= momentum <= 1 */
  constructor(args: LayerArgs<BatchNormOptions>) {
    super(args, { eps: 1e-5, momentum: 0.95 });
    const { eps, momentum } = this.options;
    this.require(eps > 0, `eps must be positive, got ${eps}`);
    this.require(momentum >= 0 && momentum <= 1, `momentum must be from 0 to 1, got ${momentum}`);
  }

  override weightSpecs(): Record<string, WeightSpec> {
    const { hiddenSize, momentum } = this.options;
    const running = { shape: [hiddenSize], kind: 'other' as const, runningRate: 1 - momentum };
    return {
      weight: normScale(hiddenSize),
      bias: { shape: [hiddenSize], kind: 'bias', init: zeros },
      running_mean: { ...running, init: zeros },
      running_var: { ...running, init: (_, size) => new Float32Array(size).fill(1) },
    };
  }

  protected override run(x: tf.Tensor, _: LayerState | undefined, { training }: ForwardOptions): LayerOutput {
    const names = ['weight', 'bias', 'running_mean', 'running_var'];
    const [weight, bias, runningMean, runningVar] = names.map((name) => this.need(name));
    const options = { training: training !== undefined, eps: this.options.eps };
    return { y: batchNorm({ x, weight, bias, runningMean, runningVar }, options), state: {} };
  }
}
tf.serialization.registerClass(BatchNorm);
