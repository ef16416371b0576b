/** Tables of relative positions, and what singular values make of them. */
import * as tf from '@tensorflow/tfjs';
import { describe, expect, test } from 'vitest';
import {
  denseBias,
  factorizeBias,
  gravityMatrix,
  greatCircleMatrix,
  swinMatrices,
  t5Bucket,
  t5CausalBand,
  t5Matrices,
} from '../../src/bias/index.js';
import { flashAttention, flashBias } from '../../src/chunked/index.js';
import { inScope } from '../support/opProperties.js';
import { expectClose, normal, random, randomTensors, values } from '../support/tensors.js';

/** The synthetic table that the ranks below are of: an even fall on both sides, and noise. */
function table(seed: number): number[][] {
  const noise = normal(seed, 32, 0.4);
  return Array.from({ length: 32 }, (_, n) => [(n < 16 ? 3 - 0.45 * n : 2 - 0.35 * (n - 16)) + noise[n]]);
}

describe('T5', () => {
  test('buckets: one each, then logarithmic, capped', () => {
    const past = [0, 1, 7, 8, 11, 12, 16, 23, 32, 64, 91, 128, 5000].map((d) => t5Bucket(-d));
    expect(past).toEqual([0, 1, 7, 8, 8, 9, 10, 11, 12, 14, 15, 15, 15]);
    expect([1, 8, 5000].map((d) => t5Bucket(d))).toEqual([17, 24, 31]);
    const causal = { bidirectional: false };
    expect([0, 15, 16, 127, 9999].map((d) => t5Bucket(-d, causal))).toEqual([0, 15, 16, 31, 31]);
    expect(t5Bucket(3, causal)).toBe(0);
  });

  test('the causal band gives the o of the dense bias, at lengths beyond maxDistance, and its gradient', () =>
    inScope(() => {
      const [T, options] = [70, { numBuckets: 12, maxDistance: 20 }];
      const [learned] = randomTensors(3, [12, 2]);
      const [q, k, v, dO] = randomTensors(4, ...Array.from({ length: 3 }, () => [1, T, 2, 4]), [1, T, 2, 4]);
      const rows = (learned as tf.Tensor2D).arraySync();
      const bias = tf.tensor4d([t5Matrices(rows, { queries: T }, { ...options, bidirectional: false })]);
      const low = (x: tf.Tensor) => flashBias({ q, k, v, band: t5CausalBand(x, options) }).o;
      expectClose('o', low(learned), flashAttention({ q, k, v, bias }).o, 3e-6);
      const got = tf.grad((x) => tf.sum(tf.mul(dO, low(x))))(learned);
      const db = values(tf.grad((b) => tf.sum(tf.mul(dO, flashAttention({ q, k, v, bias: b }).o)))(bias));
      const want = new Float64Array(24);
      for (let n = 0; n < 2 * T * T; n++) {
        const [h, i, j] = [Math.floor(n / (T * T)), Math.floor(n / T) % T, n % T];
        want[2 * t5Bucket(j - i, { ...options, bidirectional: false }) + h] += db[n];
      }
      expectClose('gradient', got, want, 1e-5);
    }));

  test('tables and options are checked', () => {
    expect(() => t5CausalBand(tf.zeros([31, 2]))).toThrow('t5CausalBand: table must have shape [32,H], got [31,2]');
    expect(() => t5Matrices(table(1).slice(1), { queries: 3 })).toThrow(
      't5Matrices: table must have 32 rows, one for each bucket, got 31',
    );
    expect(() => t5Matrices(table(1), { queries: 3 }, { maxDistance: 8 })).toThrow('maxDistance must be above 8');
    expect(() => t5Matrices(table(1).slice(1), { queries: 3 }, { numBuckets: 31 })).toThrow('numBuckets must be even');
  });
});

test('Swin V2: log-spaced offsets through the network, 16 sigmoid', () => {
  const network = {
    weight: [
      [1, 0],
      [0, 1],
      [-1, 0.5],
    ],
    bias: [0.1, -0.2, 0],
    out: [
      [1, -2, 0.5],
      [0.3, 0.3, 0.3],
    ],
  };
  const bias = swinMatrices(network, [2, 3]);
  expect([bias.length, bias[0].length, bias[0][0].length]).toEqual([2, 6, 6]);
  const spaced = (x: number) => Math.sign(x) * (Math.log2(1 + Math.abs(x)) / Math.log2(8));
  // Token 5 is at row 1, column 2; token 1 at row 0, column 1.
  const point = [spaced(8), spaced(4)];
  const hidden = network.weight.map(([a, b], n) => Math.max(0, a * point[0] + b * point[1] + network.bias[n]));
  const sum = network.out[0].reduce((s, w, n) => s + w * hidden[n], 0);
  expectClose('entry', [bias[0][5][1]], [16 / (1 + Math.exp(-sum))], 1e-12);
  expect(bias[1][2][1]).toBe(bias[1][5][4]);
});

describe('factorizeBias', () => {
  const noise = (rows: number, cols: number, seed: number) => {
    const x = normal(seed, rows * cols);
    return Array.from({ length: rows }, (_, i) => Array.from(x.subarray(i * cols, (i + 1) * cols)));
  };

  test.each([
    [9, 14],
    [14, 9],
  ])('a %d x %d matrix at full rank is exact; the error said is the error made', async (T, S) => {
    const heads = [noise(T, S, 1), noise(T, S, 2)];
    const full = await factorizeBias(heads, { rank: 100 });
    const low = await factorizeBias(heads, { rank: 4 });
    inScope(() => {
      expectClose('bias', denseBias(full), heads.flat(2), 1e-6);
      expect(full.errors.map(({ rank }) => rank)).toEqual([9, 9]);
      const got = values(denseBias(low));
      for (const [h, { maxAbs, relative, energy, singularValues }] of low.errors.entries()) {
        const want = heads[h].flat();
        const differences = want.map((b, n) => b - got[h * T * S + n]);
        const norm = (x: number[]) => Math.hypot(...x);
        expectClose('maxAbs', [maxAbs], [Math.max(...differences.map(Math.abs))], 1e-6);
        expectClose('relative', [relative], [norm(differences) / norm(want)], 1e-6);
        expectClose('energy', [1 - energy], [relative ** 2], 1e-9);
        expectClose('values left out', [relative * norm(want)], [norm(Array.from(singularValues.slice(4)))], 1e-9);
      }
    });
    tf.dispose([full.phiQ, full.phiK, low.phiQ, low.phiK]);
  });

  test('the smallest rank within a tolerance', async () => {
    const heads = [noise(12, 12, 3)];
    const { errors, phiQ, phiK } = await factorizeBias(heads, { tolerance: 0.3 });
    const [{ rank, maxAbs }] = errors;
    expect(maxAbs).toBeLessThanOrEqual(0.3);
    const less = await factorizeBias(heads, { rank: rank - 1 });
    expect(less.errors[0].maxAbs).toBeGreaterThan(0.3);
    tf.dispose([phiQ, phiK, less.phiQ, less.phiK]);
  });

  test('centred rows give the same o at a lower rank', async () => {
    const rows = noise(10, 10, 4).map((row, i) => row.map((_, j) => 5 * i + Math.sin(j)));
    const { phiQ, phiK, errors } = await factorizeBias([rows], { tolerance: 1e-6, centreRows: true });
    expect(errors[0].rank).toBe(1);
    inScope(() => {
      const [q, k, v] = randomTensors(5, ...Array.from({ length: 3 }, () => [1, 10, 1, 4]));
      const want = flashAttention({ q, k, v, bias: tf.tensor4d([[rows]]) }, { causal: false });
      expectClose('o', flashBias({ q, k, v, phiQ, phiK }, { causal: false }).o, want.o, 1e-5);
    });
    tf.dispose([phiQ, phiK]);
  });

  test.each([
    [30, 30],
    [20, 34],
  ])('a band keeps what is near the diagonal as it is: %d x %d', async (T, S) => {
    const rows = noise(T, S, 6).map((row, i) =>
      row.map((x, j) => (Math.abs(j - (S - T + i)) < 4 ? 5 * x : Math.cos(0.1 * (i - j)))),
    );
    const { phiQ, phiK, band, errors } = await factorizeBias([rows], { rank: 6, band: 4 });
    inScope(() => {
      const got = values(denseBias({ phiQ, phiK, band }));
      const largest = Math.max(...rows.flat().map((b, n) => Math.abs(b - got[n])));
      expectClose('maxAbs', [errors[0].maxAbs], [largest], 1e-5);
      const inside = rows.flatMap((row, i) =>
        row.map((b, j) => (Math.abs(j - (S - T + i)) < 4 ? b - got[i * S + j] : 0)),
      );
      expectClose('in the band', inside, new Float64Array(T * S), 3e-6);
      expect(largest).toBeLessThan(0.3);
    });
    const bare = await factorizeBias([rows], { rank: 6 });
    expect(bare.errors[0].maxAbs).toBeGreaterThan(3);
    tf.dispose([phiQ, phiK, band as tf.Tensor, bare.phiQ, bare.phiK]);
  });

  test('reads tensors [H, T, S] and [1, H, T, S]', async () => {
    const [bias] = randomTensors(7, [2, 5, 6]);
    const [a, b] = [
      await factorizeBias(bias, { rank: 5 }),
      await factorizeBias(bias.reshape([1, 2, 5, 6]), { rank: 5 }),
    ];
    inScope(() => {
      for (const factors of [a, b]) expectClose('bias', values(denseBias(factors)), values(bias), 1e-6);
    });
    tf.dispose([a.phiQ, a.phiK, b.phiQ, b.phiK]);
    await expect(factorizeBias(tf.zeros([5, 6]), { rank: 1 })).rejects.toThrow(
      'bias must have shape [H,T,S] or [1,H,T,S], got [5,6]',
    );
  });

  test.each([
    [{}, 'give one of rank, tolerance and energy, got none'],
    [{ rank: 2, energy: 0.9 }, 'give one of rank, tolerance and energy, got rank and energy'],
    [{ rank: 0 }, 'rank must be a positive integer, got 0'],
    [{ energy: 1.5 }, 'energy must be above 0 and at most 1, got 1.5'],
    [{ tolerance: -1 }, 'tolerance must be at least 0, got -1'],
    [{ rank: 1, band: 0.5 }, 'band must be a positive integer, got 0.5'],
  ])('%j is refused', async (options, message) => {
    await expect(factorizeBias([noise(3, 3, 1)], options)).rejects.toThrow(`factorizeBias: ${message}`);
  });

  test('what is not finite or not a matrix is refused', async () => {
    await expect(factorizeBias([[[1, Number.NEGATIVE_INFINITY]]], { rank: 1 })).rejects.toThrow('bias must be finite');
    await expect(factorizeBias([[[1, 2], [3]]], { rank: 1 })).rejects.toThrow('all heads and rows of one length');
  });
});

describe('the ranks of docs/attention.md', () => {
  test('a T5 table of 128 tokens needs a rank near its length for a small error; its energy does not say so', async () => {
    const matrices = t5Matrices(table(1), { queries: 128 });
    const ranks: number[] = [];
    for (const energy of [0.95, 0.99, 0.999, 0.9999]) {
      const { errors, phiQ, phiK } = await factorizeBias(matrices, { energy });
      ranks.push(errors[0].rank);
      if (energy === 0.99) expect(errors[0].maxAbs).toBeGreaterThan(1); // in units of scores: a factor e on a weight
      tf.dispose([phiQ, phiK]);
    }
    expect(ranks[0]).toBeLessThan(20);
    expect(ranks[1]).toBeLessThan(40);
    expect(ranks[3]).toBeGreaterThan(80);
    const { errors, ...factors } = await factorizeBias(matrices, { tolerance: 0.1, band: 16 });
    expect(errors[0].rank).toBeLessThan(ranks[3]);
    tf.dispose(Object.values(factors));
  });

  test('distances on the sphere are of low rank, gravity is not', async () => {
    const next = random(2);
    const points = Array.from({ length: 100 }, () => [next(), next()]);
    const globe = points.map(([a, b]) => [Math.asin(2 * a - 1), 2 * Math.PI * b]);
    const [sphere, gravity] = [
      await factorizeBias([greatCircleMatrix(globe)], { energy: 0.99 }),
      await factorizeBias([gravityMatrix(points)], { energy: 0.99 }),
    ];
    expect(sphere.errors[0].rank).toBeLessThan(8);
    expect(gravity.errors[0].rank).toBeGreaterThan(15);
    tf.dispose([sphere.phiQ, sphere.phiK, gravity.phiQ, gravity.phiK]);
  });
});
