import * as tf from '@tensorflow/tfjs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { mlgruGate } from '../../src/chunked/index.js';
import { mlgruGateOracle } from '../oracle/primitives.js';
import { inScope } from '../support/opProperties.js';
import { expectClose, outputsAndGrads, randomTensors, values } from '../support/tensors.js';

type Inputs = { f: tf.Tensor; i: tf.Tensor; lowerBound?: tf.Tensor };

describe.each(['auto', 'plain'] as const)('mlgruGate, %s form', (form) => {
  const run = (inputs: Inputs, dKeep: tf.Tensor, dInput: tf.Tensor) => {
    const op = (all: Record<string, tf.Tensor>) => {
      const { keep, input } = mlgruGate(all as Inputs, { form });
      return [keep, input];
    };
    return outputsAndGrads(op, inputs as Record<string, tf.Tensor>, [dKeep, dInput]);
  };

  function expectOracle(inputs: Inputs, dKeep: tf.Tensor, dInput: tf.Tensor, tolerance: number): void {
    const { f, i, lowerBound } = inputs;
    const D = f.shape.at(-1) as number;
    const arrays = { f: values(f), i: values(i), bound: lowerBound && values(lowerBound) };
    const want = mlgruGateOracle(arrays, { D }, { dKeep: values(dKeep), dInput: values(dInput) });
    const { outputs, grads } = run(inputs, dKeep, dInput);
    expectClose('keep', outputs[0], want.keep, tolerance);
    expectClose('input', outputs[1], want.input, tolerance);
    expectClose('df', grads.f, want.df, tolerance);
    expectClose('di', grads.i, want.di, tolerance);
    if (lowerBound) expectClose('dLowerBound', grads.lowerBound, want.dBound, tolerance, want.boundTerms);
  }

  test('equals the oracle in outputs and gradients', () => {
    const cases = fc.record({
      lead: fc.array(fc.integer({ min: 1, max: 6 }), { minLength: 1, maxLength: 2 }),
      D: fc.integer({ min: 1, max: 21 }),
      scale: fc.constantFrom(0.1, 1, 8),
      bounded: fc.boolean(),
      seed: fc.nat(1e6),
    });
    const check = ({
      lead,
      D,
      scale,
      bounded,
      seed,
    }: {
      lead: number[];
      D: number;
      scale: number;
      bounded: boolean;
      seed: number;
    }) =>
      inScope(() => {
        const shape = [...lead, D];
        const [f, i, dKeep, dInput, bound] = randomTensors(seed, shape, shape, shape, shape, [D]);
        const inputs = { f: tf.mul(f, scale), i: tf.mul(i, scale), ...(bounded && { lowerBound: tf.sigmoid(bound) }) };
        expectOracle(inputs, dKeep, dInput, 2e-6);
      });
    fc.assert(fc.property(cases, check), { numRuns: 40 });
  });

  test('a gate that keeps all but a little still lets in what belongs to it', () =>
    inScope(() => {
      const f = tf.tensor2d([[20, 40, 60, 80]]);
      const { input } = mlgruGate({ f, i: tf.onesLike(f) }, { form });
      const got = values(input);
      for (const [n, z] of [20, 40, 60, 80].entries())
        expect(got[n] / (Math.exp(-z) / (1 + Math.exp(-1)))).toBeCloseTo(1, 5);
    }));

  test('gates of +-1e4 give neither NaN nor a gradient', () =>
    inScope(() => {
      const f = tf.tensor2d([[-1e4, 1e4, -1e4, 1e4]]);
      const i = tf.tensor2d([[1, 1, -1e4, 1e4]]);
      const lowerBound = tf.tensor1d([0.5, 0.5, 0, 0]);
      const ones = tf.onesLike(f);
      const { outputs, grads } = run({ f, i, lowerBound }, ones, ones);
      expect(Array.from(values(outputs[0]))).toEqual([0.5, 1, 0, 1]);
      expect(Array.from(values(grads.f), (v) => v + 0)).toEqual([0, 0, 0, 0]);
      expect(Array.from(values(grads.i)).every(Number.isFinite)).toBe(true);
    }));

  test('the gradient of the bound over 20,000 rows keeps float32 accuracy', () =>
    inScope(() => {
      const shape = [20_000, 5];
      const [f, i, dKeep, bound] = randomTensors(2, shape, shape, shape, [5]);
      expectOracle({ f, i, lowerBound: tf.sigmoid(bound) }, tf.abs(dKeep), tf.zerosLike(i), 5e-7);
    }));

  test('leaves no tensor behind', () => {
    const [f, i, lowerBound] = randomTensors(3, [2, 3, 5], [2, 3, 5], [5]);
    const before = tf.memory().numTensors;
    const { keep, input } = mlgruGate({ f, i, lowerBound }, { form });
    tf.dispose([keep, input]);
    tf.tidy(() => void run({ f, i, lowerBound }, f, i));
    expect(tf.memory().numTensors).toBe(before);
  });
});

test('errors name the op, what was expected and what came', () => {
  const [f, i, lowerBound] = randomTensors(3, [2, 3], [2, 4], [4]);
  expect(() => mlgruGate({ f, i })).toThrow('mlgruGate: i must have shape [2,3], got [2,4]');
  expect(() => mlgruGate({ f, i: f, lowerBound })).toThrow('mlgruGate: lowerBound must have shape [3], got [4]');
  expect(() => mlgruGate({ f } as never)).toThrow('mlgruGate: i is required');
});
