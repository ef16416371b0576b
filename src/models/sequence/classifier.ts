/** A class for each sequence. */
import * as tf from '@tensorflow/tfjs';
import { checkDtype, checkShapes } from '../../chunked/check.js';
import { crossEntropy } from '../../chunked/index.js';
import { type ClassifierConfig, type ClassifierConfigInput, resolveSequenceConfig } from './config.js';
import {
  type SequenceForwardOptions,
  type SequenceInputOptions,
  SequenceModel,
  type SequenceModelOptions,
} from './sequenceModel.js';

/**
 * ```ts
 * const model = new SequenceClassifier({ modelType: 'sequence_classifier', numClasses: 10, inputSize: 1, mixers: ['gla'] });
 * const probabilities = model.predict(tf.zeros([8, 784, 1])); // [8, 10]
 * ```
 */
export class SequenceClassifier extends SequenceModel<ClassifierConfig> {
  /** @throws ConfigError that lists everything wrong with the config, WeightsError as `loadWeights` does */
  constructor(input: ClassifierConfigInput | ClassifierConfig, options: SequenceModelOptions = {}) {
    const config = resolveSequenceConfig<ClassifierConfig>(input);
    super('SequenceClassifier', config, config.numClasses, options);
  }

  /**
   * @param inputs [B, T, inputSize] float32, or of a model of tokens [B, T] int32
   * @returns the probability of each class [B, numClasses]
   */
  predict(inputs: tf.Tensor, options: SequenceInputOptions = {}): tf.Tensor2D {
    return tf.tidy(() => tf.softmax(this.forward(inputs, options)) as tf.Tensor2D);
  }

  /** Mean negative log likelihood of the classes, nats per sequence. @param classes [B] int32 */
  loss(inputs: tf.Tensor, classes: tf.Tensor, options: SequenceForwardOptions = {}): tf.Scalar {
    return tf.tidy(() => this.#loss(this.forward(inputs, options), classes));
  }

  /** The `loss`, and how many sequences have their class as the likeliest: `hits`, float32. */
  score(
    inputs: tf.Tensor,
    classes: tf.Tensor,
    options: SequenceInputOptions = {},
  ): { loss: tf.Scalar; hits: tf.Scalar } {
    return tf.tidy(() => {
      const logits = this.forward(inputs, options);
      const hits = tf.sum(tf.cast(tf.equal(tf.argMax(logits, 1), classes), 'float32')) as tf.Scalar;
      return { loss: this.#loss(logits, classes), hits };
    });
  }

  #loss(logits: tf.Tensor2D, classes: tf.Tensor): tf.Scalar {
    checkDtype(this.label, { classes }, 'int32');
    checkShapes(this.label, { classes: [classes, [logits.shape[0]]] });
    return crossEntropy({ logits, targets: classes }) as tf.Scalar;
  }
}
