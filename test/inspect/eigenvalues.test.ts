import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { extremeEigenvalues } from '../../src/inspect/eigenvalues.js';
import { normal } from '../support/tensors.js';

/** Reflections of a diagonal matrix: its eigenvalues stay. */
function reflected(eigenvalues: number[], seed: number): Float64Array {
  const n = eigenvalues.length;
  let a: Float64Array = Float64Array.from({ length: n * n }, (_, i) =>
    Math.floor(i / n) === i % n ? eigenvalues[i % n] : 0,
  );
  for (const round of [1, 2, 3]) {
    const v = normal(seed + round, n);
    const square = v.reduce((sum, x) => sum + x * x, 0);
    const q = (i: number, j: number) => +(i === j) - (2 * v[i] * v[j]) / square;
    const left = multiply(q, (i, j) => a[i * n + j], n);
    a = multiply((i, j) => left[i * n + j], q, n);
  }
  return a;
}

type Entries = (row: number, column: number) => number;

function multiply(a: Entries, b: Entries, n: number): Float64Array {
  return Float64Array.from({ length: n * n }, (_, i) => {
    let sum = 0;
    for (let k = 0; k < n; k++) sum += a(Math.floor(i / n), k) * b(k, i % n);
    return sum;
  });
}

test('the extremes of random matrices of known eigenvalues, also repeated and zero ones', () => {
  const value = fc.oneof(fc.double({ min: -3, max: 3, noNaN: true }), fc.constantFrom(0, 1, -2));
  fc.assert(
    fc.property(fc.array(value, { minLength: 1, maxLength: 12 }), fc.nat(1e6), (eigenvalues, seed) => {
      const { min, max } = extremeEigenvalues(reflected(eigenvalues, seed), eigenvalues.length);
      expect(Math.abs(min - Math.min(...eigenvalues))).toBeLessThan(1e-13);
      expect(Math.abs(max - Math.max(...eigenvalues))).toBeLessThan(1e-13);
    }),
    { numRuns: 200 },
  );
});

describe('matrices by hand', () => {
  test.each([
    [[5], 5, 5],
    [[0, 0, 0, 0], 0, 0],
    [[2, 1, 1, 2], 1, 3],
    [[3, 0, 0, 0, -7, 0, 0, 0, 2], -7, 3],
    [[2, -1, 0, -1, 2, -1, 0, -1, 2], 2 - Math.SQRT2, 2 + Math.SQRT2],
    [[1e-8, 0, 0, 1e8], 1e-8, 1e8],
  ])('%j', (matrix, least, most) => {
    const { min, max } = extremeEigenvalues(matrix, Math.sqrt(matrix.length));
    expect(Math.abs(min - least)).toBeLessThan(1e-15 * Math.max(1, Math.abs(most)));
    expect(Math.abs(max - most)).toBeLessThan(1e-15 * Math.max(1, Math.abs(most)));
  });
});
