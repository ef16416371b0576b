/** Laws of initial values, and how they are held as parameters. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Rng } from '../../src/rng.js';
import { complexNormals, logSteps, spacedLogSteps, truncatedNormals } from '../../src/ssm/draws.js';
import { type PositiveTransform, untransformed } from '../../src/ssm/transforms.js';

const mean = (x: ArrayLike<number>) => Array.from(x).reduce((sum, value) => sum + value, 0) / x.length;
const variance = (x: ArrayLike<number>) => mean(Array.from(x, (value) => value * value)) - mean(x) ** 2;
const COUNT = 20_000; // a mean is sure to 1/141 of a deviation, a variance to 1 %

describe('draws', () => {
  test('truncated normals: the wanted variance, and nothing beyond the cut', () => {
    const x = truncatedNormals(new Rng(1), COUNT, 1 / 64);
    expect(Math.abs(mean(x))).toBeLessThan(4 * 0.125 * COUNT ** -0.5);
    expect(variance(x) * 64).toBeCloseTo(1, 1);
    expect(Math.max(...x.map(Math.abs)) * 8 * 0.87962566).toBeLessThanOrEqual(2);
  });

  test('complex normals: E|z|^2 = 1, half of it in each part', () => {
    const { re, im } = complexNormals(new Rng(2), COUNT);
    expect(variance(re)).toBeCloseTo(0.5, 1);
    expect(variance(im)).toBeCloseTo(0.5, 1);
    expect(Math.abs(mean(re.map((x, i) => x * im[i])))).toBeLessThan(4 * 0.5 * COUNT ** -0.5);
  });

  test('steps are log-uniform in their range', () => {
    const x = logSteps(new Rng(3), COUNT, { dtMin: 1e-4, dtMax: 0.1 });
    const [low, high] = [Math.log(1e-4), Math.log(0.1)];
    expect(Math.min(...x)).toBeGreaterThanOrEqual(low);
    expect(Math.max(...x)).toBeLessThan(high);
    expect(mean(x)).toBeCloseTo((low + high) / 2, 1);
    expect(variance(x) / ((high - low) ** 2 / 12)).toBeCloseTo(1, 1);
  });

  test('evenly spaced steps span the range', () => {
    expect([...spacedLogSteps(3)].map((x) => Math.exp(x))).toEqual([
      expect.closeTo(1e-3, 12),
      expect.closeTo(1e-2, 12),
      expect.closeTo(0.1, 12),
    ]);
    expect(Math.exp(spacedLogSteps(1)[0])).toBeCloseTo(1e-3, 12);
  });

  test('an empty range is refused by name', () => {
    expect(() => logSteps(new Rng(0), 1, { dtMin: 0.2 })).toThrow(
      'expected 0 < dtMin <= dtMax, got dtMin 0.2 and dtMax 0.1',
    );
  });
});

describe('parameters of positive values', () => {
  const FORWARD: Record<PositiveTransform, (x: number) => number> = {
    exp: Math.exp,
    relu: (x) => Math.max(0, x),
    none: (x) => x,
    sigmoid: (x) => 1 / (1 + Math.exp(-x)),
    softplus: (x) => Math.log1p(Math.exp(x)),
  };

  test.each(Object.entries(FORWARD))('%s gives the value back', (name, forward) => {
    fc.assert(
      fc.property(fc.double({ min: 1e-4, max: 0.999, noNaN: true }), (value) => {
        const [parameter] = untransformed(name as PositiveTransform, [value]);
        expect(forward(parameter) / value).toBeCloseTo(1, 12);
      }),
    );
  });

  test('values below 0.0001 are taken for it; large ones do not overflow', () => {
    expect(untransformed('exp', [0])[0]).toBeCloseTo(Math.log(1e-4), 12);
    expect(untransformed('softplus', [1000])[0]).toBe(1000);
  });

  test('what a transform cannot give is refused', () => {
    expect(() => untransformed('sigmoid', [1])).toThrow('a sigmoid cannot be 1; use "exp" or "softplus"');
    expect(() => untransformed('log' as 'exp', [1])).toThrow('transform must be one of exp, relu');
  });
});
