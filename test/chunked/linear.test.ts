import * as tf from '@tensorflow/tfjs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { linear } from '../../src/chunked/index.js';
import { Recorder } from '../../src/profile/index.js';
import { describeProducts } from '../backend/native.js';
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

describeProducts('linear', () => {
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

  test.each(forms)('%s form: no rows give no rows; the gradients of weight and bias are 0', (form) => {
    const inputs = [tf.zeros([2, 0, 3]), tf.ones([4, 3]), tf.ones([4])];
    const op = (x: tf.Tensor, weight: tf.Tensor, bias: tf.Tensor) => linear({ x, weight, bias }, { form });
    expect(op(inputs[0], inputs[1], inputs[2]).shape).toEqual([2, 0, 4]);
    const grads = tf.grads(op)(inputs, tf.zeros([2, 0, 4]));
    expect(grads.map(({ shape }) => shape)).toEqual([[2, 0, 3], [4, 3], [4]]);
    for (const grad of grads) expect(grad.dataSync().every((value) => value === 0)).toBe(true);
  });

  test('only the gradients asked for are computed', () => {
    const [x, weight, bias] = randomTensors(1, [5, 3], [4, 3], [4]);
    const kernels = (input: 'x' | 'weight' | 'bias') => {
      const recorder = new Recorder();
      recorder.install();
      recorder.beginStep('');
      tf.grad((t) => linear({ x, weight, bias, [input]: t }))({ x, weight, bias }[input]);
      recorder.endStep();
      recorder.uninstall();
      return recorder.spans.map(({ name }) => name).filter((name) => name.includes('LinearGrad'));
    };
    for (const name of ['x', 'weight', 'bias'] as const) expect(kernels(name)).toEqual([`SeqmixLinearGrad.${name}`]);
  });

  test('a weight and a bias keep the digits of their gradient over 100,000 rows', () => {
    tf.tidy(() => {
      const [N, I, O] = [100_000, 6, 5];
      const [x, weight, bias] = randomTensors(7, [N, I], [O, I], [O]);
      // Terms of one sign: a running float32 sum would end some 1e-4 off.
      const [positive, dy] = [tf.add(tf.abs(x), 0.5), tf.fill([N, O], 0.1)];
      const { grads } = run({ x: positive, weight, bias }, dy, 'auto');
      const want = linearOracle({ x: values(positive), weight: values(weight) }, { N, I, O }, values(dy));
      expectClose('dWeight', grads.weight, want.dWeight, 2e-6);
      expectClose('dBias', grads.bias, want.dBias, 2e-7);
    });
  });

  test('a token alone gives what it gives among others', () => {
    tf.tidy(() => {
      const [x, weight, bias] = randomTensors(8, [40, 37], [50, 37], [50]);
      const all = values(linear({ x, weight, bias })) as Float32Array;
      for (const t of [0, 17, 39]) {
        const one = linear({ x: tf.slice(x, [t, 0], [1, 37]), weight, bias });
        expectClose(`token ${t}`, one, all.subarray(t * 50, (t + 1) * 50), 1e-6);
      }
    });
  });

  test.each(forms)('%s form: NaN in a row of x, of weight, or in bias stays there', (form) => {
    tf.tidy(() => {
      const [x, weight, bias] = randomTensors(9, [20, 9], [18, 9], [18]).map((t) => t.bufferSync());
      x.set(Number.NaN, 3, 4);
      weight.set(Number.POSITIVE_INFINITY, 5, 0);
      bias.set(Number.NaN, 17);
      const y = values(linear({ x: x.toTensor(), weight: weight.toTensor(), bias: bias.toTensor() }, { form }));
      for (let i = 0; i < 20; i++)
        for (let j = 0; j < 18; j++)
          expect(Number.isFinite(y[i * 18 + j]), `row ${i}, column ${j}`).toBe(i !== 3 && j !== 5 && j !== 17);
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
});
