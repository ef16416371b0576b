import * as tf from '@tensorflow/tfjs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { linear, linearAll } from '../../src/chunked/index.js';
import { Recorder } from '../../src/profile/index.js';
import { describeProducts } from '../backend/native.js';
import { expectClose, outputsAndGrads, randomTensors } from '../support/tensors.js';

interface Case {
  lead: number[];
  I: number;
  widths: number[];
  seed: number;
}

/** Against `linear` for each weight, which is tested against the oracle. */
function expectLinears({ lead, I, widths, seed }: Case, form: 'auto' | 'plain') {
  tf.tidy(() => {
    const shapes = widths.map((O) => [O, I]);
    const [x, ...rest] = randomTensors(seed, [...lead, I], ...shapes, ...widths.map((O) => [...lead, O]));
    const [weights, dys] = [rest.slice(0, widths.length), rest.slice(widths.length)];
    const inputs = Object.fromEntries([['x', x], ...weights.map((weight, i) => [`${i}`, weight])]);
    const weightsOf = (all: Record<string, tf.Tensor>) => widths.map((_, i) => all[i]);
    const want = outputsAndGrads((all) => weightsOf(all).map((weight) => linear({ x: all.x, weight })), inputs, dys);
    const got = outputsAndGrads((all) => linearAll({ x: all.x, weights: weightsOf(all) }, { form }), inputs, dys);
    for (const [i, O] of widths.entries()) {
      expect(got.outputs[i].shape).toEqual([...lead, O]);
      expectClose(`y${i}`, got.outputs[i], want.outputs[i], 1e-6, Math.sqrt(I));
      expectClose(`dWeight${i}`, got.grads[i], want.grads[i], 1e-6, Math.sqrt(lead.reduce((n, size) => n * size, 1)));
    }
    expectClose('dx', got.grads.x, want.grads.x, 1e-6, Math.sqrt(widths.reduce((n, size) => n + size, 0)));
  });
}

describeProducts('linearAll', () => {
  describe.each(['auto', 'plain'] as const)('linearAll, %s form', (form) => {
    test('equals linear of each weight, in outputs and gradients', () => {
      const upTo = (max: number) => fc.integer({ min: 1, max });
      const cases = fc.record({
        lead: fc.array(upTo(7), { maxLength: 3 }),
        I: upTo(70),
        widths: fc.array(upTo(70), { minLength: 1, maxLength: 8 }),
        seed: upTo(1e6),
      });
      fc.assert(
        fc.property(cases, (c) => expectLinears(c, form)),
        { numRuns: 40 },
      );
    });

    test.each([
      { lead: [1], I: 40, widths: [3, 300], seed: 1 }, // one row
      { lead: [2, 3], I: 9, widths: [600, 5, 1], seed: 2 }, // few rows
      { lead: [150], I: 260, widths: [16, 300, 64], seed: 3 }, // more than a block each way
      { lead: [70], I: 33, widths: [20, 5000], seed: 4 }, // dx sums more terms than go into one float32
    ])('equals linear at $lead x $I -> $widths', (c) => expectLinears(c, form));

    test('leaves no tensor behind', () => {
      const [x, a, b, dy] = randomTensors(5, [2, 7], [5, 7], [5, 7], [2, 5]);
      const before = tf.memory().numTensors;
      tf.tidy(
        () => void outputsAndGrads(({ x, a, b }) => linearAll({ x, weights: [a, b] }, { form }), { x, a, b }, [dy, dy]),
      );
      expect(tf.memory().numTensors).toBe(before);
      tf.dispose([x, a, b, dy]);
    });
  });
});

test('only the gradients asked for are computed', () => {
  const [x, a, b] = randomTensors(1, [5, 3], [4, 3], [2, 3]);
  const recorder = new Recorder();
  recorder.install();
  recorder.beginStep('');
  tf.grad((b) => tf.addN(linearAll({ x, weights: [a, b] }).map((y) => tf.sum(y))))(b);
  recorder.endStep();
  recorder.uninstall();
  const names = recorder.spans.map(({ name }) => name).filter((name) => name.includes('LinearAllGrad'));
  expect(names).toEqual(['SeqmixLinearAllGrad.weight1']);
});

test('errors name the op, what was expected and what came', () => {
  const [x, weight, wide] = randomTensors(1, [5, 3], [4, 3], [4, 2]);
  const many = Array.from({ length: 9 }, () => weight);
  expect(() => linearAll({ x, weights: [weight, wide] })).toThrow(
    'linearAll: weight1 must have shape [*,3], got [4,2]',
  );
  expect(() => linearAll({ x, weights: many })).toThrow('linearAll: there must be 1 to 8 weights, got 9');
  expect(() => linearAll({ x, weights: [] })).toThrow('linearAll: there must be 1 to 8 weights, got 0');
  expect(() => linearAll({ x, weights: [tf.ones([4, 3], 'int32')] })).toThrow('linearAll: weight0 must be float32');
});
