/** Transfer functions: the exact form of S4D-LegS's error, its spikes, and what PTD does about them. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Rng } from '../../src/rng.js';
import {
  frequencyGrid,
  legsBlaschke,
  legsDiscreteTransfer,
  legsInput,
  legsTransfer,
  ModeBasis,
  modalDiscreteTransfer,
  modalSystem,
  modalTransfer,
  type SizeStudy,
  spikeFrequencies,
  transferStudy,
} from '../../src/ssm/index.js';
import { type Complex, legs, transfer } from '../oracle/stateSpace.js';

const times = ([a, b]: readonly number[], [c, d]: readonly number[]): Complex => [a * c - b * d, a * d + b * c];
const magnitude = (x: Iterable<number>) => Math.hypot(...x);

/** C = e_0: |G| and |G_diag| of HiPPO-LegS at the largest spike. */
function atSpike(size: number): { exact: number; diagonal: number } {
  const [b, omega] = [legsInput(size), spikeFrequencies(size)[size / 2 - 1]];
  const first = Float64Array.from(b, (_, n) => (n === 0 ? 1 : 0));
  const halved = b.map((x) => x / 2);
  const system = modalSystem(new ModeBasis({ stateSize: size }), halved, first);
  return { exact: magnitude(legsTransfer(b, first, omega)), diagonal: magnitude(modalTransfer(system, omega)) };
}

describe('S4D-LegS', () => {
  test('G_diag (1 + w) = G at every frequency', () => {
    const cases = fc.record({
      size: fc.integer({ min: 1, max: 32 }).map((half) => 2 * half),
      exponent: fc.double({ min: -2, max: 4, noNaN: true }),
      seed: fc.nat(),
    });
    fc.assert(
      fc.property(cases, ({ size, exponent, seed }) => {
        const rng = new Rng(seed);
        const c = Float64Array.from({ length: size }, () => rng.normal());
        const [b, omega] = [legsInput(size), 10 ** exponent];
        const halved = b.map((x) => x / 2);
        const system = modalSystem(new ModeBasis({ stateSize: size }), halved, c);
        const w = legsBlaschke(size, omega);
        const [got, want] = [times(modalTransfer(system, omega), [1 + w[0], w[1]]), legsTransfer(b, c, omega)];
        expect(Math.hypot(got[0] - want[0], got[1] - want[1])).toBeLessThan(1e-11 * magnitude(c));
      }),
    );
  });

  test('spikes of size 2/pi at N^2/pi, which do not shrink (C = e_0)', () => {
    const digits = (x: number, n: number) => Number(x.toPrecision(n));
    const spikes = [8, 16, 64, 128].map(atSpike);
    expect(spikes.map(({ diagonal }) => digits(diagonal, 3))).toEqual([0.694, 0.651, 0.638, 0.637]);
    expect(digits(spikes[1].exact, 2)).toBe(1.2e-2);
    expect(spikes.slice(2).map(({ exact }) => digits(exact, 2))).toEqual([7.7e-4, 1.9e-4]);
    expect(spikeFrequencies(64)[31]).toBeCloseTo(1303.27, 2);
    const [re, im] = legsBlaschke(64, spikeFrequencies(64)[31]);
    expect(digits(magnitude([1 + re, im]), 3)).toBe(1.2e-3);
  });
});

test('G by forward substitution is that of elimination', () => {
  const rng = new Rng(7);
  const c = Float64Array.from({ length: 20 }, () => rng.normal());
  for (const omega of [0, 0.1, 4, 127, 3000]) {
    const [got, want] = [legsTransfer(legsInput(20), c, omega), transfer(legs(20), legsInput(20), c, omega)];
    expect(Math.hypot(got[0] - want[0], got[1] - want[1])).toBeLessThan(1e-12);
  }
});

test('gains after zero-order hold: the continuous ones, summed over their aliases', () => {
  const rng = new Rng(3);
  const size = 16;
  const [b, dt] = [legsInput(size), 0.01];
  const c = Float64Array.from({ length: size }, () => rng.normal());
  const system = modalSystem(new ModeBasis({ stateSize: size, ptd: { epsAbs: 1 } }), b, c);
  /** H(e^{i theta}) = sum_k G(i w_k) (1 - e^{-i theta}) / (i w_k dt), w_k = (theta + 2 pi k) / dt */
  const aliases = (g: (omega: number) => readonly number[], theta: number): Complex => {
    let sum: Complex = [0, 0];
    for (let k = -20_000; k <= 20_000; k++) {
      const angle = theta + 2 * Math.PI * k;
      const hold = times([1 - Math.cos(theta), Math.sin(theta)], [0, -1 / angle]);
      const [re, im] = times(g(angle / dt), hold);
      sum = [sum[0] + re, sum[1] + im];
    }
    return sum;
  };
  for (const theta of [0.3, 1.3, 2.9]) {
    for (const [got, g] of [
      [legsDiscreteTransfer(b, c, dt, theta), (omega: number) => legsTransfer(b, c, omega)],
      [modalDiscreteTransfer(system, dt, theta), (omega: number) => modalTransfer(system, omega)],
    ] as const) {
      const want = aliases(g, theta);
      expect(Math.hypot(got[0] - want[0], got[1] - want[1])).toBeLessThan(1e-6 * magnitude(c)); // of the tail left out
    }
  }
});

test('the grid reaches beyond the largest spike', () => {
  const grid = frequencyGrid(64, 100);
  expect([grid[0], grid[99]]).toEqual([expect.closeTo(0.01, 12), expect.closeTo(4 * 64 ** 2, 6)]);
});

describe('the comparison', () => {
  const studies = transferStudy({ sizes: [16, 32, 64], seed: 1, steps: 30, points: 400 });
  const of = (name: string, figure: 'sup' | 'atOne' | 'atSpike' | 'spikeGain') =>
    studies.map(({ models }) => models.find(({ model }) => model.startsWith(name))![figure]);

  test('S4D-LegS: the error at a fixed frequency falls with N, the largest does not', () => {
    const [small, , large] = of('S4D-LegS', 'atOne');
    expect(large).toBeLessThan(small / 2);
    for (const sup of of('S4D-LegS', 'sup')) expect(sup).toBeGreaterThan(0.5);
    expect(of('S4D-LegS', 'sup')).toEqual(of('S4D-LegS', 'atSpike'));
  });

  test('PTD: the largest error is of the size of E for every N, and nothing is left of the spike', () => {
    for (const sup of of('PTD, Gaussian', 'sup')) expect(sup).toBeLessThan(0.1 / 4);
    for (const form of ['PTD, Gaussian', 'PTD, skew', 'PTD, optimised'])
      for (const error of of(form, 'atSpike')) expect(error).toBeLessThan(0.01);
  });

  test('gain at the spike: hundreds of times that of HiPPO-LegS with S4D, the same with PTD', () => {
    const exact = studies.map((study: SizeStudy) => study.exact.spikeGain);
    const gains = (form: string) => of(form, 'spikeGain').map((gain, i) => gain / exact[i]);
    expect(gains('S4D-LegS')[2]).toBeGreaterThan(500);
    for (const ratio of [...gains('PTD, Gaussian'), ...gains('PTD, optimised')]) expect(ratio).toBeCloseTo(1, 1);
  });
});
