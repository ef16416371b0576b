import * as tf from '@tensorflow/tfjs';
import { describe, expect, test } from 'vitest';
import { gelu } from '../../src/chunked/index.js';
import { geluOracle, normalDistribution } from '../oracle/primitives.js';
import { expectClose, outputsAndGrads, randomTensors, values } from '../support/tensors.js';

const kinds = ['none', 'tanh'] as const;
const forms = ['auto', 'plain'] as const;

test('the oracle knows the normal distribution', () => {
  // Abramowitz & Stegun 26.2, tables 26.1 and 26.2
  expect(normalDistribution(-1)).toBeCloseTo(0.15865525393145707, 15);
  expect(normalDistribution(2.5)).toBeCloseTo(0.99379033467422384, 15);
  expect(normalDistribution(-5) / 2.866515718791939e-7).toBeCloseTo(1, 13);
  expect(normalDistribution(-2.8284) / normalDistribution(-2.8285)).toBeCloseTo(1.00031, 4); // where the two formulas meet
});

describe.each(kinds)('gelu, approximate: %s', (approximate) => {
  describe.each([[[1]], [[2]], [[3, 5]], [[2, 7, 16]]])('%j', (shape) => {
    test.each(forms)('%s form equals the oracle in output and gradient', (form) => {
      const [drawn, dy] = randomTensors(7, shape, shape);
      const x = tf.mul(drawn, 3);
      const want = geluOracle(values(x), { tanh: approximate === 'tanh' }, values(dy));
      const { outputs, grads } = outputsAndGrads((all) => [gelu(all, { approximate, form })], { x }, [dy]);
      expectClose('y', outputs[0], want.y, 5e-7);
      expectClose('dx', grads.x, want.dx, 5e-7);
    });
  });

  test.each(forms)('%s form: far out it is 0 or x, without NaN but for NaN', (form) => {
    const x = tf.tensor1d([-3e38, -1e10, -20, 0, 20, 1e10, 3e38, Number.NaN]);
    const run = (all: { x: tf.Tensor }) => [gelu(all, { approximate, form })];
    const { outputs, grads } = outputsAndGrads(run, { x }, [tf.onesLike(x)]);
    const [y, dx] = [outputs[0], grads.x].map((t) => Array.from(values(t), (v) => v + 0)); // -0 is 0
    expect(y.slice(0, 7)).toEqual(Array.from(values(x), (v) => Math.max(v, 0)).slice(0, 7));
    expect(dx.slice(0, 7)).toEqual([0, 0, 0, 0.5, 1, 1, 1]);
    expect([y[7], dx[7]]).toEqual([Number.NaN, Number.NaN]);
  });

  test.each(forms)('%s form leaves no tensor behind', (form) => {
    const [x] = randomTensors(1, [4, 4]);
    const before = tf.memory().numTensors;
    gelu({ x }, { approximate, form }).dispose();
    const sum = (t: tf.Tensor) => tf.sum(gelu({ x: t }, { approximate, form }));
    tf.tidy(() => void tf.grad(sum)(x));
    expect(tf.memory().numTensors).toBe(before);
    x.dispose();
  });
});

/** x from -13 to 8: below, Phi is under the smallest normal float32. */
const sweep = () => Float32Array.from({ length: 20_001 }, (_, i) => -13 + (21 * i) / 20_000);

test('the kernel is right to 5e-7 of the value, also in the tail', () => {
  const x = sweep();
  const want = geluOracle(x, { tanh: false }, x.slice().fill(1)).y;
  const got = values(gelu({ x: tf.tensor1d(x) }));
  const worst = Array.from(want).reduce((max, w, i) => (w === 0 ? max : Math.max(max, Math.abs(got[i] / w - 1))), 0);
  expect(worst).toBeLessThan(5e-7);
});

test('the plain form is right to 2e-7 of max(1, |x|)', () => {
  const x = sweep();
  const want = geluOracle(x, { tanh: false }, x.slice().fill(1)).y;
  const got = values(gelu({ x: tf.tensor1d(x) }, { form: 'plain' }));
  const errors = Array.from(want, (w, i) => Math.abs(got[i] - w) / Math.max(1, Math.abs(x[i])));
  expect(Math.max(...errors)).toBeLessThan(2e-7);
});

test('errors name the op, what was expected and what came', () => {
  const x = tf.ones([2]);
  expect(() => gelu({ x }, { approximate: 'erf' as 'tanh' })).toThrow(
    "gelu: approximate must be one of 'none', 'tanh', got 'erf'",
  );
  expect(() => gelu({ x: tf.ones([2], 'int32') })).toThrow('gelu: x must be float32, got int32');
});
