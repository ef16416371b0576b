/** Padded rows as packed documents. */
import * as tf from '@tensorflow/tfjs';
import { expect, test } from 'vitest';
import { withoutPadding } from '../../src/layers/padding.js';
import { inScope } from '../support/opProperties.js';
import { values } from '../support/tensors.js';

test('tokens go through as packed documents and back to their places; the padding gets zeros', () =>
  inScope(() => {
    const x = tf.tensor([1, 2, 3, 4, 5, 6], [2, 3, 1]);
    const y = withoutPadding(x, Int32Array.of(1, 2), (tokens, cuSeqlens) => {
      expect([...cuSeqlens]).toEqual([0, 1, 3]);
      expect(Array.from(values(tokens))).toEqual([1, 4, 5]);
      return tf.mul(tokens, 10);
    });
    expect(y.shape).toEqual([2, 3, 1]);
    expect(Array.from(values(y))).toEqual([10, 0, 0, 40, 50, 0]);
  }));
