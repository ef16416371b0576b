import * as tf from '@tensorflow/tfjs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { linear } from '../../src/chunked/index.js';
import { linearOracle } from '../oracle/product.js';
import { expectClose, outputsAndGrads, randomTensors, values } from '../support/tensors.js';

const forms = ['auto', 'plain'] as const;
type Form = (typeof forms)[number];
type Case = { lead: number[]; I: number; O: number; seed: number; biased: boolean };

const run = (inputs: { x: tf.Tensor; weight: tf.Tensor; bias?: tf.Tensor }, dy: tf.Tensor, form: Form) =>
  outputsAndGrads((all) => [linear(all, { form })], inputs as Record<'x' | 'weight' | 'bias', tf.Tensor>, [dy]);

function expectOracle({ lead, I, O, seed, biased }: Case, form: Form) {
  tf.tidy(() => {
    const [x, weight, bias, dy] = randomTensors(seed, [...lead, I], [O, I], [O], [...lead, O]);
    const inputs = { x, weight, ...(biased && { bias }) };
    const N = lead.reduce((n, size) => n * size, 1);
    const arrays = { x: values(x), weight: values(weight), bias: biased ? values(bias) : undefined };
    const want = linearOracle(arrays, { N, I, O }, values(dy));
    const { outputs, grads } = run(inputs, dy, form);
    expect(outputs[0].shape).toEqual([...lead, O]);
    expectClose('y', outputs[0], want.y, 1e-6, Math.sqrt(I));
    expectClose('dx', grads.x, want.dx, 1e-6, Math.sqrt(O));
    expectClose('dWeight', grads.weight, want.dWeight, 1e-6, Math.sqrt(N));
    if (biased) expectClose('dBias', grads.bias, want.dBias, 1e-6, Math.sqrt(N));
  });
}

describe.each(forms)('linear, %s form', (form) => {
  test('equals the oracle in output and gradients', () => {
    const upTo = (max: number) => fc.integer({ min: 1, max });
    const cases = fc.record({
      lead: fc.array(upTo(7), { maxLength: 3 }),
      I: upTo(70),
      O: upTo(70),
      seed: upTo(1e6),
      biased: fc.boolean(),
    });
    fc.assert(
      fc.property(cases, (c) => expectOracle(c, form)),
      { numRuns: 60 },
    );
  });

  test.each([
    { lead: [1], I: 1, O: 1, seed: 1, biased: true },
    { lead: [2, 1], I: 300, O: 129, seed: 2, biased: true },
    { lead: [3, 67], I: 530, O: 65, seed: 3, biased: false },
    { lead: [129], I: 33, O: 270, seed: 4, biased: true },
  ])('equals the oracle at $lead x $I -> $O', (c) => expectOracle(c, form));

  test('leaves no tensor behind', () => {
    const [x, weight, bias, dy] = randomTensors(5, [2, 3, 7], [5, 7], [5], [2, 3, 5]);
    const before = tf.memory().numTensors;
    tf.tidy(() => void run({ x, weight, bias }, dy, form));
    expect(tf.memory().numTensors).toBe(before);
    tf.dispose([x, weight, bias, dy]);
  });
});

test('errors name the op, what was expected and what came', () => {
  const [x, weight, wide] = randomTensors(6, [2, 4], [5, 4], [5, 6]);
  expect(() => linear({ x, weight: wide })).toThrow('linear: weight must have shape [*,4], got [5,6]');
  expect(() => linear({ x, weight, bias: tf.zeros([4]) })).toThrow('linear: bias must have shape [5], got [4]');
  expect(() => linear({ x: tf.scalar(1), weight })).toThrow('linear: x must have at least one axis, got a scalar');
  expect(() => linear({ x, weight: tf.zeros([5, 4], 'int32') })).toThrow('linear: weight must be float32, got int32');
  expect(() => linear({ x, weight: undefined as unknown as tf.Tensor })).toThrow('linear: weight is required');
  expect(() => linear({ x, weight }, { form: 'chunk' as 'plain' })).toThrow("form must be one of 'auto', 'plain'");
});
