import * as tf from '@tensorflow/tfjs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { bitLinear, packedBitLinear, packWeight, quantiseWeight, unpackWeight } from '../../src/chunked/index.js';
import { inScope } from '../support/opProperties.js';
import { randomTensors, values } from '../support/tensors.js';

const plainOf = (t: tf.Tensor) => Array.from(values(t), (v) => v + 0); // -0 is 0

describe.each(['auto', 'plain'] as const)('packedBitLinear, %s form', (form) => {
  test('is bitLinear to the last bit', () => {
    const sizes = fc.record({
      lead: fc.array(fc.integer({ min: 1, max: 4 }), { maxLength: 2 }),
      I: fc.integer({ min: 1, max: 200 }),
      O: fc.integer({ min: 1, max: 20 }),
      normed: fc.boolean(),
      seed: fc.nat(1e6),
    });
    const check = ({
      lead,
      I,
      O,
      normed,
      seed,
    }: {
      lead: number[];
      I: number;
      O: number;
      normed: boolean;
      seed: number;
    }) =>
      inScope(() => {
        const [x, weight, drawn] = randomTensors(seed, [...lead, I], [O, I], [I]);
        const norm = normed ? drawn : undefined;
        const packed = packWeight(weight);
        const got = packedBitLinear({ x, weight: packed, norm }, { form });
        expect(got.shape).toEqual([...lead, O]);
        if (form === 'auto') expect(plainOf(got)).toEqual(plainOf(bitLinear({ x, weight, norm })));
        else {
          const summed = bitLinear({ x: tf.abs(x), weight: tf.abs(weight), norm: norm && tf.abs(norm) }, { form });
          expectNear(got, bitLinear({ x, weight, norm }, { form }), summed);
        }
        expect(plainOf(unpackWeight(packed))).toEqual(plainOf(quantiseWeight(weight).values));
      });
    fc.assert(fc.property(sizes, check), { numRuns: 80 });
  });
});

/** One sums integers, the other products in float32: alike to roundings of `summed`, the magnitudes that are summed. */
function expectNear(got: tf.Tensor, want: tf.Tensor, summed: tf.Tensor): void {
  const [a, b, terms] = [plainOf(got), plainOf(want), plainOf(summed)];
  for (const [i, v] of a.entries()) expect(Math.abs(v - b[i])).toBeLessThanOrEqual(1e-6 * terms[i]);
}

test('the largest sums stay in their integers', () =>
  inScope(() => {
    const ones = tf.ones([5, 8192]);
    for (const sign of [1, -1]) {
      const weight = tf.mul(ones, sign);
      const out = packedBitLinear({ x: ones, weight: packWeight(weight) });
      expect(plainOf(out)).toEqual(plainOf(bitLinear({ x: ones, weight })));
      expect(values(out)[0]).toBeCloseTo(sign * 8192, 1);
    }
  }));

test('leaves no tensor behind, and refuses what does not fit', () => {
  const [x, weight, norm] = randomTensors(1, [3, 70], [4, 70], [70]);
  const packed = packWeight(weight);
  const before = tf.memory().numTensors;
  packedBitLinear({ x, weight: packed, norm }).dispose();
  expect(tf.memory().numTensors).toBe(before);
  expect(packed.data.shape).toEqual([4, 8]);
  expect(() => packedBitLinear({ x: tf.ones([3, 69]), weight: packed })).toThrow(
    'x must have shape [...,70], got [3,69]',
  );
  expect(() => packedBitLinear({ x, weight: { ...packed, shape: [4, 200] } })).toThrow(
    'packedBitLinear: weight.data must',
  );
});
