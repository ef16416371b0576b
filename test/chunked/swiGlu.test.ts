import * as tf from '@tensorflow/tfjs';
import { describe, expect, test } from 'vitest';
import { swiGlu } from '../../src/chunked/index.js';
import { expectClose, outputsAndGrads, randomTensors } from '../support/tensors.js';

describe.each([[[1]], [[3, 5]], [[2, 7, 16]]])('swiGlu %j', (shape) => {
  test('kernel equals the plain form in output and gradients', () => {
    const [gate, up, dy] = randomTensors(7, shape, shape, shape);
    const run = (form: 'auto' | 'plain') =>
      outputsAndGrads((x) => [swiGlu(x, { form })], { gate: tf.mul(gate, 8), up }, [dy]);
    const [got, want] = [run('auto'), run('plain')];
    expectClose('y', got.outputs[0], want.outputs[0], 2e-6);
    expectClose('dgate', got.grads.gate, want.grads.gate, 2e-6);
    expectClose('dup', got.grads.up, want.grads.up, 2e-6);
  });
});

test('swiGlu saturates without NaN', () => {
  const gate = tf.tensor1d([-1e30, -100, 0, 100, 1e30]);
  expectClose('y', swiGlu({ gate, up: tf.onesLike(gate) }), [0, 0, 0, 100, 1e30], 1e-6);
});

test('swiGlu leaves no tensor behind, and refuses unequal shapes', () => {
  const [gate, up] = randomTensors(1, [4, 4], [4, 4]);
  const before = tf.memory().numTensors;
  tf.tidy(() =>
    tf
      .grad((g: tf.Tensor) => tf.sum(swiGlu({ gate: g, up })))(gate)
      .dispose(),
  );
  expect(tf.memory().numTensors).toBe(before);
  expect(() => swiGlu({ gate, up: tf.zeros([4, 5]) })).toThrow('swiGlu: up must have shape [4,4], got [4,5]');
});
