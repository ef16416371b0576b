import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { philox, Rng } from '../../src/rng.js';

describe('philox4x32-10 gives the published known answers (Random123 kat_vectors)', () => {
  test.each([
    [
      [0, 0, 0, 0],
      [0, 0],
      [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8],
    ],
    [Array(4).fill(0xffffffff), Array(2).fill(0xffffffff), [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]],
    [
      [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
      [0xa4093822, 0x299f31d0],
      [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
    ],
  ])('counter %j key %j', (c, k, want) => {
    const out = new Uint32Array(4);
    philox(out, c[0], c[1], c[2], c[3], k[0], k[1]);
    expect([...out]).toEqual(want);
  });
});

const draws: ((rng: Rng) => unknown)[] = [
  (rng) => rng.uint32(),
  (rng) => rng.uniform(),
  (rng) => rng.normal(),
  (rng) => rng.int(7),
  (rng) => [...rng.normalArray(3, 0.5)],
  (rng) => [...rng.permutation(5)],
];
const run = (rng: Rng, picks: number[]) => picks.map((i) => draws[i](rng));
const picks = fc.array(fc.nat(draws.length - 1), { maxLength: 12 });

test('a stream resumes exactly from its state, through JSON', () => {
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.integer()), picks, picks, (seed, before, after) => {
      const rng = new Rng(seed);
      run(rng, before);
      const state = JSON.parse(JSON.stringify(rng.state()));
      expect(run(Rng.fromState(state), after)).toEqual(run(rng, after));
    }),
    { numRuns: 100 },
  );
});

test('split depends on the label and the key, not on what was drawn', () => {
  fc.assert(
    fc.property(fc.string(), fc.string(), fc.string(), picks, (seed, label, other, before) => {
      const rng = new Rng(seed);
      const fresh = rng.split(label).state();
      run(rng, before);
      expect(rng.split(label).state()).toEqual(fresh);
      if (other !== label) expect(rng.split(other).state()).not.toEqual(fresh);
    }),
  );
});

test('positions beyond 2^32 blocks go on', () => {
  const key: [number, number] = [1, 2];
  const rng = Rng.fromState({ key, position: 4 * 2 ** 32 - 1 });
  rng.uint32();
  const want = new Uint32Array(4);
  philox(want, 0, 1, 0, 0, 1, 2);
  expect([rng.uint32(), rng.uint32(), rng.uint32(), rng.uint32()]).toEqual([...want]);
});

test('permutation holds every number once; every order of three comes equally often', () => {
  fc.assert(
    fc.property(fc.nat(300), fc.integer(), (n, seed) => {
      expect([...new Rng(seed).permutation(n)].sort((a, b) => a - b)).toEqual(Array.from({ length: n }, (_, i) => i));
    }),
  );
  const rng = new Rng('orders');
  const counts = new Map<string, number>();
  for (let i = 0; i < 6000; i++) {
    const order = rng.permutation(3).join();
    counts.set(order, (counts.get(order) ?? 0) + 1);
  }
  // chi-square with 5 degrees of freedom: 20.5 is the 0.999 quantile; the seed is fixed
  const chi2 = [...counts.values()].reduce((sum, n) => sum + (n - 1000) ** 2 / 1000, 0);
  expect(counts.size).toBe(6);
  expect(chi2).toBeLessThan(20.5);
});

test('moments: uniform 1/2 and 1/12; normal 0, 1, 0, 3; tails are there', () => {
  const n = 200_000;
  const rng = new Rng(1);
  const u = rng.uniformArray(n);
  const z = rng.normalArray(n, 2).map((x) => x / 2);
  const mean = (x: Float32Array, p: number, shift = 0) => x.reduce((sum, v) => sum + (v - shift) ** p, 0) / x.length;
  // five standard errors of each mean
  expect(Math.abs(mean(u, 1) - 0.5)).toBeLessThan((5 * Math.sqrt(1 / 12)) / Math.sqrt(n));
  expect(Math.abs(mean(u, 2, 0.5) - 1 / 12)).toBeLessThan((5 * Math.sqrt(1 / 180)) / Math.sqrt(n));
  expect(Math.abs(mean(z, 1))).toBeLessThan(5 / Math.sqrt(n));
  expect(Math.abs(mean(z, 2) - 1)).toBeLessThan((5 * Math.sqrt(2)) / Math.sqrt(n));
  expect(Math.abs(mean(z, 3))).toBeLessThan((5 * Math.sqrt(15)) / Math.sqrt(n));
  expect(Math.abs(mean(z, 4) - 3)).toBeLessThan((5 * Math.sqrt(96)) / Math.sqrt(n));
  expect(z.filter((x) => Math.abs(x) > 3).length / n).toBeCloseTo(0.0027, 3);
});

test('bad arguments are refused with the value', () => {
  expect(() => new Rng(Number.NaN)).toThrow('Rng: seed must be finite, got NaN');
  expect(() => new Rng(1).int(0)).toThrow('from 1 to 2^32, got 0');
  expect(() => Rng.fromState({ key: [1, -1], position: 0 })).toThrow('"key":[1,-1]');
  expect(() => Rng.fromState({ key: [1, 1], position: -1 })).toThrow('"position":-1');
});
