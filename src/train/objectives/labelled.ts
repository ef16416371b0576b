/** Labelled batches as tensors. */
import * as tf from '@tensorflow/tfjs';
import type { LabelledBatch } from '../data/batch.js';

/** What `loss` and `score` of a `SequenceModel` take; inside a tidy. */
export function labelledTensors(batch: LabelledBatch) {
  const { labels, batchSize } = batch;
  return {
    ...inputTensors(batch),
    labels:
      labels instanceof Int32Array
        ? tf.tensor1d(labels, 'int32')
        : tf.tensor2d(labels, [batchSize, labels.length / batchSize]),
  };
}

/** What `predict` takes. */
export function inputTensors({
  inputs,
  channels,
  batchSize,
  seqLen,
  lengths,
  intervals,
}: Omit<LabelledBatch, 'labels'>) {
  const shape = [batchSize, seqLen];
  return {
    inputs: channels === 0 ? tf.tensor(inputs, shape, 'int32') : tf.tensor(inputs, [...shape, channels], 'float32'),
    options: { lengths, intervals: intervals && tf.tensor(intervals, shape, 'float32') },
  };
}

export const nothingToScore = () =>
  new RangeError('evaluate: there is no sequence to score; give more data for validation');
