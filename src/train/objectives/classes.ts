/** The objective of classifiers: the likelihood of the class of each sequence. */
import * as tf from '@tensorflow/tfjs';
import type { SequenceClassifier } from '../../models/index.js';
import type { LabelledBatch } from '../data/batch.js';
import { labelledTensors, nothingToScore } from './labelled.js';
import type { Objective } from './objective.js';

export const classes: Objective<SequenceClassifier, LabelledBatch> = {
  unit: 'sequences',

  loss(model, batch, given) {
    const { inputs, labels, options } = labelledTensors(batch);
    return model.loss(inputs, labels, { ...options, ...given });
  },

  async score(model, batch) {
    const scored: tf.Scalar[] = tf.tidy(() => {
      const { inputs, labels, options } = labelledTensors(batch);
      const { loss, hits } = model.score(inputs, labels, options);
      return [loss, hits];
    });
    const [nats, hits] = await Promise.all(scored.map(async (x) => (await x.data())[0]));
    tf.dispose(scored);
    return { nats, hits };
  },

  tally() {
    let [nats, hits, sequences] = [0, 0, 0];
    return {
      add({ batchSize }, score) {
        nats += score.nats * batchSize;
        hits += score.hits ?? 0;
        sequences += batchSize;
      },
      result() {
        if (sequences === 0) throw nothingToScore();
        return { loss: nats / sequences, accuracy: hits / sequences, sequences };
      },
    };
  },
};
