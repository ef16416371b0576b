import * as tf from '@tensorflow/tfjs';
import { expect, test } from 'vitest';
import { TokenEmbedding } from '../../src/layers/index.js';
import { describeLayer } from '../support/layerProperties.js';
import { inScope } from '../support/opProperties.js';
import { random, values } from '../support/tensors.js';

const vocabSize = 5;
const make = (extra?: object) => new TokenEmbedding({ hiddenSize: 6, vocabSize, ...extra });

function input(seed: number, B: number, T: number): tf.Tensor {
  const next = random(seed);
  const ids = Array.from({ length: B * T }, () => Math.floor(next() * vocabSize));
  return tf.tensor(ids, [B, T], 'int32');
}

describeLayer({ title: 'TokenEmbedding', make, input });

test('float32 ids, as a tf.model may hand them over, name the same rows of the table', () =>
  inScope(() => {
    const layer = make();
    const ids = tf.tensor2d([[4, 0, 4]]);
    const want = tf.gather(layer.weightsByName().get('weight') as tf.Tensor, tf.tensor2d([[4, 0, 4]], [1, 3], 'int32'));
    expect(Array.from(values(layer.forward(ids).y))).toEqual(Array.from(values(want)));
    layer.dispose();
  }));

test('errors name the layer, what was expected and what came', () => {
  expect(() => make({ vocabSize: 0 })).toThrow('TokenEmbedding: vocabSize must be a positive integer, got 0');
  expect(() => make({ name: 'e' }).forward(tf.zeros([1, 2, 3]))).toThrow(
    'TokenEmbedding "e": token ids must have shape [B,T], got [1,2,3]',
  );
});
