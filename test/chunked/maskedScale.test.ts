import * as tf from '@tensorflow/tfjs';
import { describe, expect, test } from 'vitest';
import { maskedScale } from '../../src/chunked/index.js';
import { outputsAndGrads, randomTensors, values } from '../support/tensors.js';

const forms = ['auto', 'plain'] as const;

describe.each([[[1, 1, 1]], [[2, 3, 5]], [[3, 4, 16]]])('maskedScale %j', ([B, T, D]) => {
  test.each(forms)('%s form: every entry times that of its row of the mask, and so its gradient', (form) => {
    const [x, dy, mask] = randomTensors(3, [B, T, D], [B, T, D], [B, D]);
    const scaled = (t: tf.Tensor) => {
      const [v, m] = [values(t), values(mask)];
      return Array.from(v, (a, i) => Math.fround(a * m[Math.floor(i / (T * D)) * D + (i % D)]));
    };
    const { outputs, grads } = outputsAndGrads((all) => [maskedScale({ ...all, mask }, { form })], { x }, [dy]);
    expect(Array.from(values(outputs[0]))).toEqual(scaled(x));
    expect(Array.from(values(grads.x))).toEqual(scaled(dy));
  });
});

test('maskedScale leaves no tensor behind, and refuses a mask of another shape', () => {
  const [x, mask] = randomTensors(1, [2, 3, 4], [2, 4]);
  const before = tf.memory().numTensors;
  for (const form of forms) {
    maskedScale({ x, mask }, { form }).dispose();
    const sum = (t: tf.Tensor) => tf.sum(maskedScale({ x: t, mask }, { form }));
    tf.tidy(() => void tf.grad(sum)(x));
  }
  expect(tf.memory().numTensors).toBe(before);
  expect(() => maskedScale({ x, mask: tf.ones([2, 3]) })).toThrow('mask must have shape [2,4], got [2,3]');
  expect(() => maskedScale({ x: mask, mask })).toThrow('x must have shape [*,*,*], got [2,4]');
});
