import * as tf from '@tensorflow/tfjs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { kdaGate, logSigmoidGate } from '../../src/chunked/index.js';
import { kdaGateOracle, logSigmoidGateOracle } from '../oracle/primitives.js';
import { expectClose, outputsAndGrads, randomTensors, values } from '../support/tensors.js';

const forms = ['auto', 'plain'] as const;
const hard = [-1e4, -100, -20, -9, -1, -1e-6, 0, 1e-6, 1, 9, 20, 100, 1e4];

describe.each(forms)('logSigmoidGate, %s form', (form) => {
  test('equals the oracle in output and gradient', () => {
    const cases = fc.record({
      shape: fc.array(fc.integer({ min: 1, max: 6 }), { minLength: 1, maxLength: 4 }),
      normalizer: fc.constantFrom(1, 16, 2.5),
      clampMin: fc.constantFrom(undefined, -0.05, -1),
      seed: fc.integer({ min: 0, max: 1e6 }),
    });
    fc.assert(
      fc.property(cases, ({ shape, normalizer, clampMin, seed }) => {
        tf.tidy(() => {
          const [raw, dy] = randomTensors(seed, shape, shape);
          const x = tf.mul(raw, 5);
          const want = logSigmoidGateOracle(values(x), { normalizer, clampMin }, values(dy));
          const op = (all: { x: tf.Tensor }) => [logSigmoidGate(all, { normalizer, clampMin, form })];
          const { outputs, grads } = outputsAndGrads(op, { x }, [dy]);
          expectClose('y', outputs[0], want.y, 2e-6);
          expectClose('dx', grads.x, want.dx, 2e-6);
        });
      }),
      { numRuns: 40 },
    );
  });

  test('is right from -1e4 to 1e4, with no gradient where it is clamped', () => {
    tf.tidy(() => {
      const x = tf.tensor1d(hard);
      for (const clampMin of [undefined, -2]) {
        const want = logSigmoidGateOracle(
          hard,
          { normalizer: 16, clampMin },
          hard.map(() => 1),
        );
        const op = (all: { x: tf.Tensor }) => [logSigmoidGate(all, { clampMin, form })];
        const { outputs, grads } = outputsAndGrads(op, { x }, [tf.onesLike(x)]);
        expectClose('y', outputs[0], want.y, 2e-7);
        expectClose('dx', grads.x, want.dx, 2e-7);
        if (clampMin !== undefined) expect(Array.from(values(grads.x)).slice(0, 2)).toEqual([0, 0]);
      }
    });
  });

  test('hides no NaN, clamped or not', () => {
    tf.tidy(() => {
      const x = tf.tensor1d([1, Number.NaN, -50, 2, Number.NaN]);
      for (const clampMin of [undefined, -0.5]) {
        const op = (all: { x: tf.Tensor }) => [logSigmoidGate(all, { clampMin, form })];
        const { outputs, grads } = outputsAndGrads(op, { x }, [tf.onesLike(x)]);
        const bad = [false, true, false, false, true];
        for (const t of [outputs[0], grads.x]) expect(Array.from(values(t), Number.isNaN)).toEqual(bad);
      }
    });
  });

  test('has its gradient also after x was freed, as inside a layer', () => {
    tf.tidy(() => {
      const [x] = randomTensors(3, [2, 3]);
      const inside = tf.grad((y) => tf.tidy(() => tf.sum(logSigmoidGate({ x: tf.mul(y, 2) }, { form }))))(x);
      const outside = tf.grad((y) => tf.sum(logSigmoidGate({ x: tf.mul(y, 2) }, { form })))(x);
      expectClose('dx', inside, values(outside), 0);
    });
  });

  test('leaves no tensor behind', () => {
    const [x, dy] = randomTensors(1, [3, 5], [3, 5]);
    const before = tf.memory().numTensors;
    tf.tidy(() => void outputsAndGrads((all) => [logSigmoidGate(all, { clampMin: -1, form })], { x }, [dy]));
    expect(tf.memory().numTensors).toBe(before);
    tf.dispose([x, dy]);
  });
});

test('the logSigmoidGate kernel keeps its digits where the gate is tiny', () => {
  const x = Float32Array.from({ length: 2001 }, (_, i) => (i - 1000) * 0.082); // beyond 84 the gate is denormal
  const { y, dx } = logSigmoidGateOracle(
    x,
    { normalizer: 16 },
    x.map(() => 1),
  );
  tf.tidy(() => {
    const op = (all: { x: tf.Tensor }) => [logSigmoidGate(all)];
    const { outputs, grads } = outputsAndGrads(op, { x: tf.tensor1d(x) }, [tf.ones([x.length])]);
    const relative = (got: ArrayLike<number>, want: Float64Array) =>
      want.reduce((worst, w, i) => Math.max(worst, Math.abs(got[i] - w) / Math.abs(w)), 0);
    expect(relative(values(outputs[0]), y)).toBeLessThan(3e-7);
    expect(relative(values(grads.x), dx)).toBeLessThan(3e-7);
  });
});

type KdaInputs = { f: tf.Tensor; aLog: tf.Tensor; dtBias: tf.Tensor };

function expectKda(inputs: Partial<KdaInputs>, dg: tf.Tensor, lowerBound: number | undefined, form: 'auto' | 'plain') {
  const [H, K] = dg.shape.slice(2);
  const arrays = Object.fromEntries(Object.entries(inputs).map(([name, t]) => [name, values(t)]));
  const want = kdaGateOracle(arrays as Parameters<typeof kdaGateOracle>[0], { H, K, lowerBound }, values(dg));
  const { outputs, grads } = outputsAndGrads((all) => [kdaGate(all, { lowerBound, form })], inputs as KdaInputs, [dg]);
  // The plain gradient of a sigmoid multiplies by 1 - s, which keeps few digits where s is near 1.
  const tolerance = form === 'plain' && lowerBound !== undefined ? 1e-5 : 2e-6;
  expectClose('g', outputs[0], want.g, 2e-6);
  expectClose('df', grads.f, want.df, tolerance);
  const terms = Math.max(1, want.terms / 4); // terms of both signs cancel
  expectClose('dDtBias', grads.dtBias, want.dDtBias, tolerance, terms);
  if (inputs.aLog) expectClose('dALog', grads.aLog, want.dALog, tolerance, terms);
}

describe.each(forms)('kdaGate, %s form', (form) => {
  test('equals the oracle in output and every gradient', () => {
    const cases = fc.record({
      B: fc.integer({ min: 1, max: 2 }),
      T: fc.integer({ min: 1, max: 40 }),
      H: fc.integer({ min: 1, max: 3 }),
      K: fc.integer({ min: 1, max: 9 }),
      rate: fc.boolean(),
      lowerBound: fc.constantFrom(undefined, -5),
      seed: fc.integer({ min: 0, max: 1e6 }),
    });
    fc.assert(
      fc.property(cases, ({ B, T, H, K, rate, lowerBound, seed }) => {
        tf.tidy(() => {
          const [f, aLog, dtBias, dg] = randomTensors(seed, [B, T, H, K], [H], [H * K], [B, T, H, K]);
          expectKda({ f: tf.mul(f, 4), dtBias, ...(rate && { aLog }) }, dg, lowerBound, form);
        });
      }),
      { numRuns: 40 },
    );
  });

  test.each([undefined, -5])('is finite and right for projections of +-1e4, bound %s', (lowerBound) => {
    tf.tidy(() => {
      const f = tf.tensor4d(hard, [1, 13, 1, 1]);
      expectKda({ f, aLog: tf.tensor1d([0.7]), dtBias: tf.tensor1d([0.1]) }, tf.onesLike(f), lowerBound, form);
    });
  });

  test('hides no NaN', () => {
    tf.tidy(() => {
      const f = tf.tensor4d([1, 2, Number.NaN, 4, 5, 6], [1, 2, 1, 3]);
      const [aLog, dtBias] = [tf.zeros([1]), tf.zeros([3])];
      for (const lowerBound of [undefined, -5]) {
        const inputs = { f, aLog, dtBias };
        const { outputs, grads } = outputsAndGrads((all) => [kdaGate(all, { lowerBound, form })], inputs, [
          tf.onesLike(f),
        ]);
        const bad = [false, false, true, false, false, false];
        expect(Array.from(values(outputs[0]), Number.isNaN)).toEqual(bad);
        expect(Array.from(values(grads.f), Number.isNaN)).toEqual(bad);
        expect(Array.from(values(grads.dtBias), Number.isNaN)).toEqual([false, false, true]);
        expect(Array.from(values(grads.aLog), Number.isNaN)).toEqual([true]);
      }
    });
  });

  test('leaves no tensor behind', () => {
    const [f, aLog, dtBias, dg] = randomTensors(2, [1, 5, 2, 3], [2], [6], [1, 5, 2, 3]);
    const before = tf.memory().numTensors;
    tf.tidy(() => void outputsAndGrads((all) => [kdaGate(all, { form })], { f, aLog, dtBias }, [dg]));
    expect(tf.memory().numTensors).toBe(before);
    tf.dispose([f, aLog, dtBias, dg]);
  });
});

test('kdaGate sums its shared gradients over 16,000 tokens to float32 accuracy', () => {
  tf.tidy(() => {
    const shape = [2, 8000, 2, 3];
    const [f, aLog, dtBias] = randomTensors(3, shape, [2], [6]);
    const dg = tf.ones(shape);
    const arrays = { f: values(f), aLog: values(aLog), dtBias: values(dtBias) };
    const want = kdaGateOracle(arrays, { H: 2, K: 3 }, values(dg));
    const { grads } = outputsAndGrads((all) => [kdaGate(all)], { f, aLog, dtBias }, [dg]);
    expectClose('dALog', grads.aLog, want.dALog, 3e-7);
    expectClose('dDtBias', grads.dtBias, want.dDtBias, 3e-7);
  });
});

test('errors name the op, what was expected and what came', () => {
  const x = tf.ones([1, 2, 2, 3]);
  const [aLog, dtBias] = [tf.ones([2]), tf.ones([6])];
  expect(() => logSigmoidGate({ x }, { normalizer: 0 })).toThrow(
    'logSigmoidGate: normalizer must be a positive number, got 0',
  );
  expect(() => logSigmoidGate({ x }, { clampMin: 1 })).toThrow(
    'logSigmoidGate: clampMin must be zero or negative, got 1',
  );
  expect(() => logSigmoidGate({ x: tf.ones([2], 'int32') })).toThrow('logSigmoidGate: x must be float32, got int32');
  expect(() => kdaGate({ f: aLog, aLog, dtBias })).toThrow('kdaGate: f must have shape [*,*,*,*], got [2]');
  expect(() => kdaGate({ f: x, aLog: dtBias, dtBias })).toThrow('kdaGate: aLog must have shape [2], got [6]');
  expect(() => kdaGate({ f: x, aLog, dtBias: aLog })).toThrow('kdaGate: dtBias must have shape [6], got [2]');
  expect(() => kdaGate({ f: x, aLog, dtBias }, { lowerBound: 1 })).toThrow(
    'kdaGate: lowerBound must be a negative number, got 1',
  );
});
