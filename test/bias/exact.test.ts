/** Factors whose product is the bias they stand for: against the definition in float64, and the gradients of what can be learned. */
import * as tf from '@tensorflow/tfjs';
import { describe, expect, test } from 'vitest';
import {
  alibi,
  alibiSlopes,
  type BiasFactors,
  cosine,
  denseBias,
  greatCircleMatrix,
  haversine,
  polynomial,
  separable,
  squaredDistance,
} from '../../src/bias/index.js';
import { flashBias } from '../../src/chunked/index.js';
import { inScope } from '../support/opProperties.js';
import { expectClose, normal, random, randomTensors, values } from '../support/tensors.js';

/** b [B, H, T, S] by a function of sequence, head, query, key. */
function matrix([B, H, T, S]: number[], b: (n: number, h: number, i: number, j: number) => number): Float64Array {
  return Float64Array.from({ length: B * H * T * S }, (_, at) => {
    const [n, h, i, j] = [Math.floor(at / (H * T * S)), Math.floor(at / (T * S)) % H, Math.floor(at / S) % T, at % S];
    return b(n, h, i, j);
  });
}

/** Both give the same o; the short one has a lower rank. */
function expectSameOutputs(long: BiasFactors, short: BiasFactors, H: number): void {
  const [T, S] = [long.phiQ.shape[1] as number, long.phiK.shape[1] as number];
  const [q, k, v] = randomTensors(3, [1, T, H, 4], [1, S, H, 4], [1, S, H, 3]);
  const [want, got] = [long, short].map((factors) => flashBias({ q, k, v, ...factors }, { causal: false }).o);
  expectClose('o', got, want, 2e-6);
  expect(short.phiQ.shape[3]).toBeLessThan(long.phiQ.shape[3] as number);
}

describe('alibi', () => {
  test('slopes by the formula, and as published where the heads are no power of two', () => {
    expect(alibiSlopes(8)).toEqual([1, 2, 3, 4, 5, 6, 7, 8].map((n) => 2 ** -n));
    expectClose(
      '12 heads',
      alibiSlopes(12),
      Array.from({ length: 12 }, (_, h) => 2 ** ((-8 * (h + 1)) / 12)),
      1e-15,
    );
    const eight = [1, 2, 3, 4, 5, 6, 7, 8].map((n) => 2 ** -n);
    expectClose(
      'published',
      alibiSlopes(12, 'published'),
      [...eight, ...[0.5, 1.5, 2.5, 3.5].map((n) => 2 ** -n)],
      1e-15,
    );
    expect(alibiSlopes(4, 'published')).toEqual(alibiSlopes(4));
    expect(() => alibiSlopes(0)).toThrow('alibiSlopes: numHeads must be a positive integer, got 0');
  });

  test('is m (j - i): a distance lowers the score', () =>
    inScope(() => {
      const slopes = [0.5, 0.03];
      const factors = alibi({ slopes, queries: 5, keys: 8 });
      const want = matrix([1, 2, 5, 8], (_, h, i, j) => slopes[h] * (j - (3 + i)));
      expectClose('bias', denseBias(factors), want, 1e-7);
      expect(want[3]).toBe(0);
      expect(want[2]).toBe(-0.5);
      expect(factors.phiQ.shape).toEqual([1, 5, 2, 2]);
    }));

  test('the short form gives the same o', () =>
    inScope(() => {
      const slopes = alibiSlopes(2);
      const [long, short] = [false, true].map((short) => alibi({ slopes, queries: 9, keys: 12, short }));
      expectSameOutputs(long, short, 2);
    }));

  test('the gradient on the slopes is sum db (j - i)', () =>
    inScope(() => {
      const slopes = tf.tensor1d([0.3, 0.2]);
      const [db] = randomTensors(1, [1, 2, 4, 6]);
      const loss = (m: tf.Tensor) => tf.sum(tf.mul(db, denseBias(alibi({ slopes: m, queries: 4, keys: 6 }))));
      const distance = matrix([1, 2, 4, 6], (_n, _h, i, j) => j - (2 + i));
      const want = [0, 1].map((h) =>
        Array.from(distance).reduce((sum, d, at) => sum + (Math.floor(at / 24) === h ? d * values(db)[at] : 0), 0),
      );
      expectClose('gradient', tf.grad(loss)(slopes), want, 1e-6);
    }));
});

test('cosine, with amplitudes', () =>
  inScope(() => {
    const [frequencies, amplitudes] = [
      [0.3, 1.1],
      [2, -1],
    ];
    const want = matrix([1, 2, 6, 9], (_, h, i, j) => amplitudes[h] * Math.cos(frequencies[h] * (3 + i - j)));
    expectClose('bias', denseBias(cosine({ frequencies, amplitudes, queries: 6, keys: 9 })), want, 1e-6);
    const ones = matrix([1, 2, 6, 6], (_, h, i, j) => Math.cos(frequencies[h] * (i - j)));
    expectClose('bias', denseBias(cosine({ frequencies, queries: 6 })), ones, 1e-6);
    const gradient = tf.grad((a) => tf.sum(denseBias(cosine({ frequencies, amplitudes: a, queries: 6 }))))(
      tf.tensor1d([2, -1]),
    );
    const sums = [0, 1].map((h) => ones.slice(36 * h, 36 * (h + 1)).reduce((a, b) => a + b));
    expectClose('gradient', gradient, sums, 1e-5);
  }));

test('polynomials in j - i', () =>
  inScope(() => {
    const coefficients = [
      [1, -0.5, 0.02, 0.001],
      [0, 0.1, -0.03, 0],
    ];
    const want = matrix([1, 2, 20, 31], (_, h, i, j) =>
      coefficients[h].reduce((sum, c, n) => sum + c * (j - 11 - i) ** n, 0),
    );
    const factors = polynomial({ coefficients, queries: 20, keys: 31 });
    expectClose('bias', denseBias(factors), want, 1e-6);
    expect(factors.phiQ.shape[3]).toBe(4);
    expect(() => polynomial({ coefficients: [[1, 2], [1]], queries: 3 })).toThrow('as many for each head');
  }));

test('separable, with rows and without', () =>
  inScope(() => {
    const [rows, columns] = randomTensors(2, [2, 4, 3], [1, 5, 1]);
    const [r, c] = [values(rows), values(columns)];
    const want = matrix([2, 3, 4, 5], (n, h, i, j) => r[(n * 4 + i) * 3 + h] + c[j]);
    expectClose('bias', denseBias(separable({ rows, columns })), want, 1e-6);
    const long = separable({ rows: tf.slice(rows, 0, 1), columns });
    expectSameOutputs(long, separable({ columns, queries: 4 }), 3);
    expect(() => separable({ columns })).toThrow('separable: without rows it needs queries');
    expect(() => separable({ columns: tf.zeros([5]), queries: 4 })).toThrow(
      'columns must have shape [B or 1,*,H or 1], got [5]',
    );
  }));

describe('squaredDistance', () => {
  test('is -w |x - y|^2 in 3 dimensions', () =>
    inScope(() => {
      const [x, y, weight] = randomTensors(4, [2, 4, 3], [1, 6, 3], [2, 4, 2]);
      const [p, q, w] = [x, y, weight].map(values);
      const want = matrix([2, 2, 4, 6], (n, h, i, j) => {
        const square = [0, 1, 2].reduce((sum, a) => sum + (p[(n * 4 + i) * 3 + a] - q[j * 3 + a]) ** 2, 0);
        return -w[(n * 4 + i) * 2 + h] * square;
      });
      const factors = squaredDistance({ x, y, weight });
      expectClose('bias', denseBias(factors), want, 1e-6);
      expect(factors.phiQ.shape).toEqual([2, 4, 2, 5]);
      const own = Array.from(values(denseBias(squaredDistance({ x })))).filter((_, at) => at < 16 && at % 5 === 0);
      expectClose('diagonal', own, [0, 0, 0, 0], 1e-5);
    }));

  test('the short form gives the same o', () =>
    inScope(() => {
      const [x, weight] = randomTensors(5, [1, 7, 2], [1, 7, 2]);
      const [long, short] = [false, true].map((short) => squaredDistance({ x, weight }, { short }));
      expectSameOutputs(long, short, 2);
    }));

  test('shapes are checked', () =>
    inScope(() => {
      const x = tf.zeros([1, 4, 3]);
      expect(() => squaredDistance({ x, y: tf.zeros([1, 4, 2]) })).toThrow(
        'squaredDistance: y must have shape [B or 1,*,3], got [1,4,2]',
      );
      expect(() => squaredDistance({ x, weight: tf.zeros([4]) })).toThrow(
        'weight must have shape [B or 1,T,H or 1], got [4]',
      );
    }));
});

test('haversine is sin^2 of half the angle', () =>
  inScope(() => {
    const next = random(8);
    const points = Array.from({ length: 9 }, () => [Math.PI * (next() - 0.5), 2 * Math.PI * next()]);
    const angles = greatCircleMatrix(points);
    const x = tf.tensor3d([points]);
    const want = matrix([1, 1, 9, 9], (_n, _h, i, j) => Math.sin(angles[i][j] / 2) ** 2);
    expectClose('bias', denseBias(haversine({ x })), want, 1e-6);
    const weight = tf.tensor(normal(1, 18), [1, 9, 2]);
    const weighted = matrix([1, 2, 9, 9], (_n, h, i, j) => values(weight)[2 * i + h] * want[9 * i + j]);
    expectClose('bias', denseBias(haversine({ x, weight })), weighted, 1e-6);
    expect(denseBias(haversine({ x })).shape).toEqual([1, 1, 9, 9]);
  }));
