import * as tf from '@tensorflow/tfjs';
import { type BackendName, useBackend } from '../backend/useBackend.js';
import { isSequenceConfig, SequenceClassifier } from '../models/index.js';
import { inputTensors } from '../train/objectives/labelled.js';
import { createSequenceModel, openModel } from '../train/openModel.js';
import { labelledFiles } from './labelledFiles.js';

export interface PredictFlags {
  data: string[];
  batchSize: number;
  /** Print the probability of every class. */
  probabilities: boolean;
  backend: BackendName;
}

/** `seqmix predict`: one JSON object a line on stdout, for each sequence in the order of the files. */
export async function runPredict(
  reference: string,
  { data, batchSize, probabilities, backend }: PredictFlags,
): Promise<number> {
  const opened = await openModel(reference);
  const { config } = opened;
  if (!isSequenceConfig(config)) throw new Error('predict: expected a classifier or regressor, got a language model');
  const { batches, places } = await labelledFiles(data, config, { batchSize, labelled: false });
  await useBackend(backend);
  const model = createSequenceModel(opened);
  let at = 0;
  for (const batch of batches) {
    const output = tf.tidy(() => {
      const { inputs, options } = inputTensors(batch);
      return model.predict(inputs, options);
    });
    const values = await output.data();
    const width = output.shape[1];
    output.dispose();
    for (let b = 0; b < batch.batchSize; b++) {
      const row = Array.from(values.slice(b * width, (b + 1) * width));
      const told = model instanceof SequenceClassifier ? classOf(row, probabilities) : { y: row };
      console.log(JSON.stringify({ sequence: places[at++], ...told }));
    }
  }
  model.dispose();
  return 0;
}

function classOf(row: number[], all: boolean) {
  const likeliest = row.indexOf(Math.max(...row));
  return { class: likeliest, probability: row[likeliest], ...(all && { probabilities: row }) };
}
