import * as tf from '@tensorflow/tfjs';
import { describe, expect, test } from 'vitest';
import { swiGlu } from '../../src/chunked/index.js';
import { swiGluOracle } from '../oracle/primitives.js';
import { expectClose, outputsAndGrads, randomTensors, values } from '../support/tensors.js';

describe.each([[[1]], [[2]], [[3, 5]], [[2, 7, 16]]])('swiGlu %j', (shape) => {
  test.each(['auto', 'plain'] as const)('%s form equals the oracle in output and gradients', (form) => {
    const [logits, up, dy] = randomTensors(7, shape, shape, shape);
    const gate = tf.mul(logits, 8);
    const want = swiGluOracle(values(gate), values(up), values(dy));
    const { outputs, grads } = outputsAndGrads((x) => [swiGlu(x, { form })], { gate, up }, [dy]);
    expectClose('y', outputs[0], want.y, 2e-6);
    expectClose('dGate', grads.gate, want.dGate, 2e-6);
    expectClose('dUp', grads.up, want.dUp, 2e-6);
  });
});

test.each(['auto', 'plain'] as const)('%s form of one tensor: gate first, then up', (form) => {
  const [x, dy] = randomTensors(9, [2, 3, 14], [2, 3, 7]);
  const [gate, up] = tf.split(x, 2, -1);
  const want = swiGluOracle(values(gate), values(up), values(dy));
  const { outputs, grads } = outputsAndGrads((all) => [swiGlu(all, { form })], { x }, [dy]);
  const [dGate, dUp] = tf.split(grads.x, 2, -1);
  expect(outputs[0].shape).toEqual([2, 3, 7]);
  expectClose('y', outputs[0], want.y, 2e-6);
  expectClose('dGate', dGate, want.dGate, 2e-6);
  expectClose('dUp', dUp, want.dUp, 2e-6);
  expect(() => swiGlu({ x: tf.ones([2, 5]) }, { form })).toThrow('swiGlu: the last axis of x must be even');
});

test('swiGlu saturates without NaN', () => {
  const gate = tf.tensor1d([-1e30, -100, 0, 100, 1e30]);
  const { outputs, grads } = outputsAndGrads((x) => [swiGlu(x)], { gate, up: tf.onesLike(gate) }, [tf.onesLike(gate)]);
  expectClose('y', outputs[0], [0, 0, 0, 100, 1e30], 1e-6);
  expectClose('dGate', grads.gate, [0, 0, 0.5, 1, 1], 1e-6);
});

test('swiGlu hides no NaN', () => {
  const gate = tf.tensor1d([1, Number.NaN, 1, 1, 1, Number.NaN]);
  const { outputs, grads } = outputsAndGrads((x) => [swiGlu(x)], { gate, up: tf.onesLike(gate) }, [tf.onesLike(gate)]);
  const bad = [false, true, false, false, false, true];
  for (const t of [outputs[0], grads.gate, grads.up]) expect(Array.from(values(t), Number.isNaN)).toEqual(bad);
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
