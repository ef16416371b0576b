/** The objective of regressors: the squared error of the numbers of each sequence. */
import * as tf from '@tensorflow/tfjs';
import type { SequenceRegressor } from '../../models/index.js';
import type { LabelledBatch } from '../data/batch.js';
import { labelledTensors, nothingToScore } from './labelled.js';
import type { Objective } from './objective.js';

export const numbers: Objective<SequenceRegressor, LabelledBatch> = {
  unit: 'sequences',

  loss(model, batch, given) {
    const { inputs, labels, options } = labelledTensors(batch);
    return model.loss(inputs, labels, { ...options, ...given });
  },

  async score(model, batch) {
    const sums = tf.tidy(() => {
      const { inputs, labels, options } = labelledTensors(batch);
      return model.score(inputs, labels, options);
    });
    const squares = Array.from(await sums.data());
    sums.dispose();
    return { nats: squares.reduce((a, b) => a + b, 0) / batch.labels.length, squares };
  },

  tally() {
    let sequences = 0;
    const columns: { errors: number; sum: number; squares: number }[] = [];
    return {
      add({ labels, batchSize }, { squares = [] }) {
        sequences += batchSize;
        for (const [k, errors] of squares.entries()) {
          columns[k] ??= { errors: 0, sum: 0, squares: 0 };
          const column = columns[k];
          column.errors += errors;
          for (let i = k; i < labels.length; i += squares.length) {
            column.sum += labels[i];
            column.squares += labels[i] ** 2;
          }
        }
      },
      result() {
        if (sequences === 0) throw nothingToScore();
        const total = (of: (column: (typeof columns)[number]) => number) => columns.reduce((sum, c) => sum + of(c), 0);
        const errors = total((column) => column.errors);
        const spread = total(({ squares, sum }) => squares - sum ** 2 / sequences);
        const loss = errors / (sequences * columns.length);
        return { loss, rmse: Math.sqrt(loss), ...(spread > 0 && { r2: 1 - errors / spread }), sequences };
      },
    };
  },
};
