/** Mixers that read in both directions, and those that know time, inside classifiers. */
import * as tf from '@tensorflow/tfjs';
import { beforeAll, expect, test } from 'vitest';
import { useBackend } from '../../src/backend/useBackend.js';
import { SequenceClassifier } from '../../src/models/index.js';
import { Rng } from '../../src/rng.js';
import { expectClose } from '../support/tensors.js';

beforeAll(() => useBackend('wasm'));

const model = (bidirectional: boolean) =>
  new SequenceClassifier({
    ...{ modelType: 'sequence_classifier', numClasses: 3, hiddenSize: 8, numLayers: 2 },
    mixers: [{ type: 's5', stateSize: 8, blocks: 1, bidirectional }],
  });
const inputs = () => tf.tensor3d(new Rng('x').normalArray(27), [3, 9, 1]);

test('padding counts for nothing to a mixer that reads from the end too', () => {
  const both = model(true);
  const lengths = [9, 2, 6];
  const alone = lengths.map((length, b) => both.forward(tf.slice(inputs(), [b, 0, 0], [1, length, 1])));
  expectClose('logits', both.forward(inputs(), { lengths }), tf.concat(alone), 1e-5);
  both.dispose();
});

test('intervals reach the mixers: those of 1 are none, others tell', () => {
  const one = model(false);
  const logits = (intervals?: tf.Tensor) => one.forward(inputs(), { intervals });
  expectClose('logits', logits(tf.ones([3, 9])), logits(), 1e-5);
  const distance = tf.max(tf.abs(tf.sub(logits(tf.fill([3, 9], 3)), logits()))).dataSync()[0];
  expect(distance).toBeGreaterThan(1e-3);
  one.dispose();
});

test.each(['sorted', 'rotation'] as const)('Scatterbrain with a %s hash reads padded rows as each alone', (type) => {
  const both = new SequenceClassifier({
    ...{ modelType: 'sequence_classifier', numClasses: 3, hiddenSize: 8, numLayers: 2 },
    mixers: [
      {
        ...{ type: 'scatterbrain_attention', numHeads: 2, nbFeatures: 6, windowSize: 2, bidirectional: true },
        hash: { type, bucketSize: 2, rounds: 2, numBuckets: 4 },
      },
    ],
  });
  const lengths = [9, 2, 6];
  const alone = lengths.map((length, b) => both.forward(tf.slice(inputs(), [b, 0, 0], [1, length, 1])));
  expectClose('logits', both.forward(inputs(), { lengths }), tf.concat(alone), 1e-5);
  both.dispose();
});
