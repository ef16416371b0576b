import * as tf from '@tensorflow/tfjs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type RotaryEmbeddingOptions, rotaryEmbedding } from '../../src/chunked/index.js';
import { rotaryOracle } from '../oracle/primitives.js';
import { expectClose, outputsAndGrads, randomTensors, values } from '../support/tensors.js';

const forms = ['auto', 'plain'] as const;

function expectOracle(
  shape: number[],
  options: RotaryEmbeddingOptions,
  positions: number[],
  seed = 1,
  tolerance = 1e-6,
) {
  tf.tidy(() => {
    const [H, D] = shape.slice(2);
    const [x, dy] = randomTensors(seed, shape, shape);
    const want = rotaryOracle(values(x), { H, D, base: options.base ?? 10000 }, positions, values(dy));
    const { outputs, grads } = outputsAndGrads((all) => [rotaryEmbedding(all, options)], { x }, [dy]);
    expectClose('y', outputs[0], want.y, tolerance);
    expectClose('dx', grads.x, want.dx, tolerance);
  });
}

const count = (from: number, length: number) => Array.from({ length }, (_, t) => from + t);

describe.each(forms)('rotaryEmbedding, %s form', (form) => {
  test('equals the oracle in output and gradient, one offset for all or one per row', () => {
    const cases = fc.record({
      B: fc.integer({ min: 1, max: 3 }),
      T: fc.integer({ min: 1, max: 20 }),
      H: fc.integer({ min: 1, max: 3 }),
      half: fc.integer({ min: 1, max: 9 }),
      base: fc.constantFrom(10000, 500),
      offsets: fc.array(fc.integer({ min: 0, max: 1_000_000 }), { minLength: 3, maxLength: 3 }),
      shared: fc.boolean(),
      seed: fc.integer({ min: 0, max: 1e6 }),
    });
    fc.assert(
      fc.property(cases, ({ B, T, H, half, base, offsets, shared, seed }) => {
        const offset = shared ? offsets[0] : Int32Array.from(offsets.slice(0, B));
        const positions = count(0, B).flatMap((b) => count(shared ? offsets[0] : offsets[b], T));
        expectOracle([B, T, H, 2 * half], { base, offset, form }, positions, seed);
      }),
      { numRuns: 40 },
    );
  });

  test('packed documents restart at their offsets', () => {
    const cuSeqlens = Int32Array.of(0, 1, 6, 9);
    expectOracle([1, 9, 2, 6], { cuSeqlens, form }, [0, ...count(0, 5), ...count(0, 3)]);
    const offset = Int32Array.of(7, 0, 100);
    expectOracle([1, 9, 2, 6], { cuSeqlens, offset, form }, [7, ...count(0, 5), ...count(100, 3)]);
    expectOracle([1, 9, 2, 6], { cuSeqlens, offset: 3, form }, [3, ...count(3, 5), ...count(3, 3)]);
  });

  test('a cut at any token, with the offset moved on, equals the whole', () => {
    tf.tidy(() => {
      const [x] = randomTensors(5, [2, 9, 2, 8]);
      const whole = rotaryEmbedding({ x }, { offset: 4, form });
      for (const cut of [1, 4, 8]) {
        const [a, b] = tf.split(x, [cut, 9 - cut], 1);
        const parts = [
          rotaryEmbedding({ x: a }, { offset: 4, form }),
          rotaryEmbedding({ x: b }, { offset: 4 + cut, form }),
        ];
        expectClose('parts', tf.concat(parts, 1), whole, 2e-7);
      }
    });
  });

  test('hides no NaN: both channels of the pair turn NaN', () => {
    tf.tidy(() => {
      const y = rotaryEmbedding({ x: tf.tensor4d([1, 1, Number.NaN, 1, 1, 1], [1, 1, 1, 6]) }, { offset: 3, form });
      expect(Array.from(values(y), Number.isNaN)).toEqual([false, false, true, false, false, true]);
    });
  });

  test('leaves no tensor behind', () => {
    const [x, dy] = randomTensors(6, [1, 5, 2, 4], [1, 5, 2, 4]);
    const before = tf.memory().numTensors;
    tf.tidy(() => void outputsAndGrads((all) => [rotaryEmbedding(all, { form })], { x }, [dy]));
    expect(tf.memory().numTensors).toBe(before);
    tf.dispose([x, dy]);
  });
});

test('angles stay right over 200,000 consecutive tokens up to position one million', () => {
  expectOracle([1, 200_000, 1, 4], { offset: 800_000, base: 10 }, count(800_000, 200_000), 9, 3e-7);
});

test('errors name the op, what was expected and what came', () => {
  const x = tf.ones([2, 3, 1, 4]);
  expect(() => rotaryEmbedding({ x: tf.ones([2, 3, 4]) })).toThrow('rotaryEmbedding: x must have shape [*,*,*,*]');
  expect(() => rotaryEmbedding({ x: tf.ones([2, 3, 1, 5]) })).toThrow(
    'rotaryEmbedding: the last axis of x must be even, got 5',
  );
  expect(() => rotaryEmbedding({ x: tf.ones([2, 3, 1, 4], 'int32') })).toThrow('x must be float32, got int32');
  expect(() => rotaryEmbedding({ x }, { base: 0 })).toThrow('rotaryEmbedding: base must be a positive number, got 0');
  expect(() => rotaryEmbedding({ x }, { offset: 0.5 })).toThrow(
    'rotaryEmbedding: offset must be an integer or an Int32Array of 2, got 0.5',
  );
  expect(() => rotaryEmbedding({ x }, { offset: Int32Array.of(1, 2, 3) })).toThrow('an Int32Array of 2, got 3 of them');
  expect(() => rotaryEmbedding({ x }, { cuSeqlens: Int32Array.of(0, 3) })).toThrow('cuSeqlens needs a batch of 1');
});
