import { describe, expect, test } from 'vitest';
import { crossover, growthExponent, median, quantile, range } from '../../bench/statistics.js';

describe('statistics of timings', () => {
  test('median is the middle value, or the mean of the two in the middle', () => {
    expect(median([9, 1, 5])).toBe(5);
    expect(median([9, 1, 5, 7])).toBe(6);
  });

  test('quantile interpolates as NumPy does', () => {
    expect(quantile([10, 20, 30, 40], 0.25)).toBe(17.5); // numpy.quantile([10, 20, 30, 40], 0.25)
    expect(quantile([4], 0.9)).toBe(4);
    expect(() => quantile([], 0.5)).toThrow('expected at least one value, got none');
  });

  test('range is smallest and largest', () => expect(range([3, -1, 2])).toEqual([-1, 3]));

  test('growthExponent finds the power it was given', () => {
    const points = [1024, 2048, 8192].map((T) => ({ T, ms: 3e-4 * T ** 1.25 }));
    expect(growthExponent(points)).toBeCloseTo(1.25, 12);
    expect(() => growthExponent(points.slice(0, 1))).toThrow('at least two lengths, got 1');
  });

  test('crossover is where the difference turns positive for good', () => {
    const at = (...differences: number[]) => crossover(differences.map((difference, i) => ({ x: 10 * i, difference })));
    expect(at(-1, 3, 5)).toBe(2.5);
    expect(at(-1, 3, -2, 2)).toBe(25);
    expect(at(1, 2)).toBe(0);
    expect(at(1, 2, 0)).toBeUndefined();
    expect(at()).toBeUndefined();
  });
});
