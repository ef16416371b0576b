import * as tf from '@tensorflow/tfjs';
import { describe, expect, test } from 'vitest';
import { bitLinear, linear, roundedActivations, roundedWeight } from '../../src/chunked/index.js';
import { inScope } from '../support/opProperties.js';
import { expectClose, outputsAndGrads, randomTensors } from '../support/tensors.js';

type Inputs = { x: tf.Tensor; weight: tf.Tensor; norm: tf.Tensor };

describe.each(['auto', 'plain'] as const)('the factors of bitLinear, %s form', (form) => {
  test.each([
    [3, 5, 7],
    [9, 16, 4],
  ])('%i rows, %i to %i: their product is bitLinear, also in gradients', (rows, I, O) =>
    inScope(() => {
      const [x, weight, norm, dOut] = randomTensors(2, [rows, I], [O, I], [I], [rows, O]);
      const product = (all: Inputs) => [
        linear({ x: roundedActivations(all, { form }), weight: roundedWeight(all.weight, { form }) }, { form }),
      ];
      const whole = (all: Inputs) => [bitLinear(all, { form })];
      const [got, want] = [product, whole].map((op) => outputsAndGrads(op, { x, weight, norm }, [dOut]));
      expectClose('out', got.outputs[0], want.outputs[0], 1e-6);
      for (const name of ['x', 'weight', 'norm'] as const) expectClose(name, got.grads[name], want.grads[name], 2e-6);
    }),
  );

  test('leave no tensor behind', () => {
    const [x, weight, norm] = randomTensors(2, [3, 5], [4, 5], [5]);
    const before = tf.memory().numTensors;
    tf.dispose([roundedActivations({ x, norm }, { form }), roundedWeight(weight, { form })]);
    const sum = (a: tf.Tensor, b: tf.Tensor) =>
      tf.add(tf.sum(roundedActivations({ x: a, norm }, { form })), tf.sum(roundedWeight(b, { form }))) as tf.Scalar;
    tf.tidy(() => void tf.grads(sum)([x, weight]));
    expect(tf.memory().numTensors).toBe(before);
  });
});
