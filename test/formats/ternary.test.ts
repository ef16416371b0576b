import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  packedRowBytes,
  packTernary,
  repackTernary,
  type TernaryEncoding,
  unpackTernary,
} from '../../src/formats/ternary.js';
import { random } from '../support/tensors.js';

const encodings: TernaryEncoding[] = ['2bit', 'base3'];

function draw(seed: number, n: number): Int8Array {
  const next = random(seed);
  return Int8Array.from({ length: n }, () => Math.floor(3 * next()) - 1);
}

describe.each(encodings)('%s', (encoding) => {
  test('what is packed comes back, in as many bytes as said', () => {
    const sizes = fc.record({
      rows: fc.integer({ min: 0, max: 6 }),
      columns: fc.integer({ min: 1, max: 70 }),
      align: fc.constantFrom(1, 4, 16),
      seed: fc.nat(1e6),
    });
    fc.assert(
      fc.property(sizes, ({ rows, columns, align, seed }) => {
        const values = draw(seed, rows * columns);
        const bytes = packTernary(values, [rows, columns], { encoding, align });
        const perByte = encoding === '2bit' ? 4 : 5;
        expect(bytes.length).toBe(rows * packedRowBytes(columns, { encoding, align }));
        expect(bytes.length * perByte).toBeGreaterThanOrEqual(rows * columns);
        expect(bytes.length).toBeLessThan(rows * (columns / perByte + align) + 1);
        expect(unpackTernary(bytes, [rows, columns], { encoding, align })).toEqual(values);
      }),
      { numRuns: 100 },
    );
  });

  test('a byte that no values give is damage', () => {
    const bad = Uint8Array.of(encoding === '2bit' ? 0b11_00_01_10 : 243);
    expect(() => unpackTernary(bad, [1, 4], { encoding })).toThrow(`byte 0 is ${bad[0]}, which no values give`);
  });

  test('errors say what was expected and what came', () => {
    expect(() => packTernary([1, 0, 2], [1, 3], { encoding })).toThrow('must be -1, 0 or 1, got 2 in row 0, column 2');
    expect(() => packTernary([Number.NaN], [1, 1], { encoding })).toThrow('must be -1, 0 or 1, got NaN');
    expect(() => packTernary([1, 0], [1, 3], { encoding })).toThrow('a matrix [1,3] holds 3 values, got 2');
    expect(() => unpackTernary(new Uint8Array(3), [1, 3], { encoding })).toThrow('a matrix [1,3] takes 1 bytes, got 3');
  });
});

test('repacked: the bytes that the other packing gives', () => {
  const [values, shape] = [draw(3, 5 * 23), [5, 23] as [number, number]];
  const packings = encodings.flatMap((encoding) => [1, 16].map((align) => ({ encoding, align })));
  for (const packing of packings)
    for (const into of packings) {
      const matrix = { shape, bytes: packTernary(values, shape, packing), packing, scale: 2 };
      const bytes = packTernary(values, shape, into);
      expect(repackTernary(matrix, into)).toEqual({ shape, bytes, packing: into, scale: 2 });
    }
  const whole = { shape, bytes: packTernary(values, shape, packings[0]), packing: packings[0], scale: 2 };
  expect(repackTernary(whole, packings[0]).bytes).toBe(whole.bytes);
  const damaged = { ...whole, bytes: whole.bytes.with(7, 0b11) };
  for (const into of packings) expect(() => repackTernary(damaged, into)).toThrow('is 3, which no values give');
  const short = { shape, bytes: new Uint8Array(4), packing: packings[0], scale: 1 };
  expect(() => repackTernary(short, packings[1])).toThrow('a matrix [5,23] takes 30 bytes, got 4');
});

test('the bytes are those of the formats', () => {
  const values = [-1, 0, 1, 1, 0];
  expect([...packTernary(values, [1, 5])]).toEqual([
    0 | (1 << 2) | (2 << 4) | (2 << 6),
    1 | (1 << 2) | (1 << 4) | (1 << 6),
  ]);
  expect([...packTernary(values, [1, 5], { encoding: 'base3' })]).toEqual([0 + 3 + 2 * 9 + 2 * 27 + 81]);
  expect([...packTernary([1, 1], [2, 1], { encoding: 'base3' })]).toEqual([122, 122]); // 2 + 3 + 9 + 27 + 81
  expect(packTernary(draw(1, 5 * 64), [5, 64]).length * 8).toBe(2 * 5 * 64);
  expect(packTernary(draw(1, 5 * 65), [5, 65], { encoding: 'base3' }).length * 8).toBe(1.6 * 5 * 65);
});

test('unknown options are refused', () => {
  expect(() => packTernary([0], [1, 1], { encoding: 'base4' as 'base3' })).toThrow("must be one of '2bit', 'base3'");
  expect(() => packTernary([0], [1, 1], { align: 0 })).toThrow('align must be a positive integer, got 0');
});
