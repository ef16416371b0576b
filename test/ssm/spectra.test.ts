/** Spectra of S4D and what is known exactly of HiPPO-LegS. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Rng } from '../../src/rng.js';
import { legsBlaschke, legsInput, legsResolvent } from '../../src/ssm/hippo.js';
import { initialS4d } from '../../src/ssm/s4d.js';
import { type S4dSpectrum, s4dSpectrum } from '../../src/ssm/spectra.js';
import { legs, transfer } from '../oracle/stateSpace.js';
import { goldenEntries, readGoldenNumbers } from '../support/golden.js';

const spectrum = (kind: S4dSpectrum, size: number, options = {}, seed = 0) =>
  s4dSpectrum(kind, size, new Rng(seed), options);

describe('stored vectors', () => {
  const [legsFile] = goldenEntries('s4d_legs_spectrum');
  const numbers = readGoldenNumbers(legsFile.file);

  test.each([8, 16, 32, 64])('S4D-LegS, %i states: frequencies and |B|', (size) => {
    const { a, b } = initialS4d({ hiddenSize: 1, stateSize: size, legsB: 'full' }, new Rng(0));
    for (const [name, got] of [
      [`legs_omega_N${size}`, a.im],
      [`legs_absB_N${size}`, b.re],
    ] as const) {
      const error = Math.max(...Array.from(numbers[name].data, (want, n) => Math.abs(got[n] - want)));
      expect(error, name).toBeLessThanOrEqual(legsFile.tolerances[name].max_abs);
    }
  });

  const [inits] = goldenEntries('s4d_kernel');
  const stored = readGoldenNumbers(inits.file);
  test.each(['legs', 'inv', 'lin', 'real', 'quad', 'inv2'] as const)('%s, 16 states', (kind) => {
    const { re, im } = spectrum(kind, 16);
    const close = (name: string, got: ArrayLike<number>) =>
      stored[`${kind}.${name}`].data.forEach((want, i) => {
        expect(Math.abs(got[i % 8] - want), name).toBeLessThanOrEqual(1e-6 * Math.max(1, Math.abs(want))); // float32 as stored
      });
    close(
      'log_A_real',
      Float64Array.from(re, (x) => Math.log(-x)),
    );
    close('A_imag', im);
  });

  test('LegS of 16 states: B unhalved', () => {
    const { b } = initialS4d({ hiddenSize: 1, stateSize: 16, legsB: 'full' }, new Rng(0));
    stored['legs.B'].data.forEach((want, i) => {
      expect(i % 2 ? 0 : b.re[(i >> 1) % 8]).toBeCloseTo(want, 4);
    });
  });
});

describe('HiPPO-LegS', () => {
  test('published figures: 64 states, and 2 sum |B|^2 = N^2', () => {
    const { a, b } = initialS4d({ hiddenSize: 1, legsB: 'full' }, new Rng(0));
    expect(Array.from(a.im.slice(0, 3), (x) => Number(x.toPrecision(4)))).toEqual([0.2639, 0.9059, 1.703]);
    expect(Array.from(a.im.slice(-2), (x) => Number(x.toFixed(2)))).toEqual([433.03, 1303.27]);
    expect(Array.from(b.re.slice(-2), (x) => Number(x.toFixed(3)))).toEqual([13.606, 40.752]);
    expect(2 * b.re.reduce((sum, x) => sum + x * x, 0)).toBeCloseTo(64 ** 2, 8);
  });

  test('legsB: half of it for the theory, or cut at 2 as the public code', () => {
    const of = (legsB: 'half' | 'full' | 'clip2') => initialS4d({ hiddenSize: 1, legsB }, new Rng(0)).b.re;
    const [half, full, clipped] = [of('half'), of('full'), of('clip2')];
    expect([...half]).toEqual(Array.from(full, (x) => x / 2));
    expect([...clipped]).toEqual(Array.from(full, (x) => Math.min(x, 2)));
    expect(clipped.filter((x) => x === 2).length).toBeGreaterThan(5);
  });

  const cases = fc.record({
    size: fc.integer({ min: 1, max: 16 }),
    omega: fc.double({ min: -300, max: 300, noNaN: true }),
  });

  test('the resolvent by forward substitution is that of elimination', () => {
    fc.assert(
      fc.property(cases, ({ size, omega }) => {
        const x = legsResolvent(omega, legsInput(size));
        for (let n = 0; n < size; n++) {
          const unit = Array.from({ length: size }, (_, k) => (k === n ? 1 : 0));
          const [re, im] = transfer(legs(size), legsInput(size), unit, omega);
          expect(Math.hypot(x.re[n] - re, x.im[n] - im)).toBeLessThan(1e-12);
        }
      }),
    );
  });

  test('B^T (s - A)^{-1} B = 1 - w(s) and |w| = |omega| / sqrt(omega^2 + N^2)', () => {
    fc.assert(
      fc.property(cases, ({ size, omega }) => {
        const b = legsInput(size);
        const x = legsResolvent(omega, b);
        const [re, im] = legsBlaschke(size, omega);
        const dot = (part: Float64Array) => part.reduce((sum, value, n) => sum + b[n] * value, 0);
        expect(Math.hypot(dot(x.re) - (1 - re), dot(x.im) + im)).toBeLessThan(1e-12 * size);
        expect(Math.hypot(re, im)).toBeCloseTo(Math.abs(omega) / Math.hypot(omega, size), 12);
      }),
    );
  });
});

describe('random and rescaled spectra', () => {
  test('realRandom and imagRandom take the place of 1/2 and n, in their ranges, by the seed', () => {
    const of = (seed: number) => spectrum('lin', 64, { realRandom: true, imagRandom: true }, seed);
    const { re, im } = of(1);
    expect([...re]).toEqual([...of(1).re]);
    expect([...re]).not.toEqual([...of(2).re]);
    expect(Math.min(...re)).toBeGreaterThanOrEqual(-1);
    expect(Math.max(...re)).toBeLessThanOrEqual(-1e-4);
    expect(Math.min(...im)).toBeGreaterThanOrEqual(0);
    expect(Math.max(...im)).toBeLessThan(Math.PI * 32);
    expect(new Set(im).size).toBe(32);
  });

  test('real with realRandom: whole numbers below N, and no mode that does not decay', () => {
    const { re } = spectrum('real', 16, { realRandom: true });
    for (const x of re) expect(x === -1e-4 || (Number.isInteger(x) && x < 0 && x > -16)).toBe(true);
  });

  test('scales multiply', () => {
    const [plain, scaled] = [spectrum('inv', 16), spectrum('inv', 16, { realScale: 2, imagScale: 3 })];
    expect([...scaled.re]).toEqual(Array.from(plain.re, (x) => 2 * x));
    expect([...scaled.im]).toEqual(Array.from(plain.im, (x) => 3 * x));
  });

  test('rand: logarithms of standard deviation 1 about 0', () => {
    const { im } = spectrum('rand', 20_000);
    const logs = Array.from(im, Math.log);
    const mean = logs.reduce((sum, x) => sum + x, 0) / logs.length;
    expect(Math.abs(mean)).toBeLessThan(0.04);
    expect(logs.reduce((sum, x) => sum + x * x, 0) / logs.length).toBeCloseTo(1, 1);
  });

  test('what has no meaning is refused', () => {
    expect(() => spectrum('legs', 16, { imagRandom: true })).toThrow('imagRandom needs a spectrum with a formula in n');
    expect(() => spectrum('lin', 15)).toThrow('must be even and > 0, got 15');
    expect(() => spectrum('line' as 'lin', 16)).toThrow('kind must be one of legs, rand, lin, inv');
  });
});
