/** Some numbers for each sequence. */
import * as tf from '@tensorflow/tfjs';
import { checkDtype, checkShapes } from '../../chunked/check.js';
import { type RegressorConfig, type RegressorConfigInput, resolveSequenceConfig } from './config.js';
import {
  type SequenceForwardOptions,
  type SequenceInputOptions,
  SequenceModel,
  type SequenceModelOptions,
} from './sequenceModel.js';

/** The numbers should be of a size near 1: the loss is their squared error. */
export class SequenceRegressor extends SequenceModel<RegressorConfig> {
  /** @throws ConfigError that lists everything wrong with the config, WeightsError as `loadWeights` does */
  constructor(input: RegressorConfigInput | RegressorConfig, options: SequenceModelOptions = {}) {
    const config = resolveSequenceConfig<RegressorConfig>(input);
    super('SequenceRegressor', config, config.numTargets, options);
  }

  /**
   * @param inputs [B, T, inputSize] float32, or of a model of tokens [B, T] int32
   * @returns [B, numTargets]
   */
  predict(inputs: tf.Tensor, options: SequenceInputOptions = {}): tf.Tensor2D {
    return this.forward(inputs, options);
  }

  /** Mean squared error over sequences and targets. @param targets [B, numTargets] float32 */
  loss(inputs: tf.Tensor, targets: tf.Tensor, options: SequenceForwardOptions = {}): tf.Scalar {
    return tf.tidy(() => tf.mean(this.#squares(this.forward(inputs, options), targets)) as tf.Scalar);
  }

  /** The sums of the squared errors over the sequences [numTargets]. */
  score(inputs: tf.Tensor, targets: tf.Tensor, options: SequenceInputOptions = {}): tf.Tensor1D {
    return tf.tidy(() => tf.sum(this.#squares(this.forward(inputs, options), targets), 0) as tf.Tensor1D);
  }

  #squares(values: tf.Tensor2D, targets: tf.Tensor): tf.Tensor {
    checkDtype(this.label, { targets });
    checkShapes(this.label, { targets: [targets, values.shape] });
    return tf.square(tf.sub(values, targets));
  }
}
