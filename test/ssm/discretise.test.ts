/** Discretisation against the definitions: series for small steps, closed forms elsewhere. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { discretise } from '../../src/ssm/discretise.js';

type Complex = [number, number];
const times = ([a, b]: Complex, [c, d]: Complex): Complex => [a * c - b * d, a * d + b * c];
const over = (x: Complex, [c, d]: Complex): Complex => {
  const [a, b] = times(x, [c, -d]);
  return [a / (c * c + d * d), b / (c * c + d * d)];
};
const exp = ([x, y]: Complex): Complex => [Math.exp(x) * Math.cos(y), Math.exp(x) * Math.sin(y)];
const gap = (a: Complex, b: Complex) => Math.hypot(a[0] - b[0], a[1] - b[1]) / Math.hypot(...b);

/** One mode: exp(zeta) and psi. */
function discrete(
  lambda: Complex,
  dt: number,
  rule: 'zoh' | 'bilinear',
): { step: Complex; psi: Complex; zeta: Complex } {
  const { zeta, psi } = discretise({ re: Float64Array.of(lambda[0]), im: Float64Array.of(lambda[1]) }, dt, rule);
  return { step: exp([zeta.re[0], zeta.im[0]]), psi: [psi.re[0], psi.im[0]], zeta: [zeta.re[0], zeta.im[0]] };
}

/** dt (1 + z/2 + z^2/6 + ...): psi of zero-order hold without a subtraction; 40 terms are enough for |z| <= 1. */
function series(lambda: Complex, dt: number): Complex {
  const z: Complex = [dt * lambda[0], dt * lambda[1]];
  let [term, sum]: [Complex, Complex] = [
    [dt, 0],
    [dt, 0],
  ];
  for (let k = 2; k < 40; k++) {
    term = times(term, [z[0] / k, z[1] / k]);
    sum = [sum[0] + term[0], sum[1] + term[1]];
  }
  return sum;
}

const decay = fc.double({ min: 1e-4, max: 100, noNaN: true });
const frequency = fc.double({ min: -1e4, max: 1e4, noNaN: true });

describe('zero-order hold', () => {
  test('psi to the last digits where |z| <= 1, however small', () => {
    const exponent = fc.double({ min: -12, max: 0, noNaN: true });
    fc.assert(
      fc.property(decay, frequency, exponent, (a, w, power) => {
        const dt = 10 ** power / Math.hypot(a, w);
        expect(gap(discrete([-a, w], dt, 'zoh').psi, series([-a, w], dt))).toBeLessThan(2e-15);
      }),
    );
  });

  test('psi = (e^z - 1) / lambda, and the transition is e^z', () => {
    fc.assert(
      fc.property(decay, frequency, fc.double({ min: 1, max: 50, noNaN: true }), (a, w, size) => {
        const lambda: Complex = [-a, w];
        const dt = size / Math.hypot(...lambda);
        const { step, psi } = discrete(lambda, dt, 'zoh');
        const whole = exp([-a * dt, w * dt]);
        expect(step).toEqual(whole);
        const grown: Complex = [whole[0] - 1, whole[1]];
        const absolute = Math.hypot(...over(grown, lambda).map((x, i) => x - psi[i]));
        expect(absolute * Math.hypot(...lambda)).toBeLessThan(1e-15 * 8);
      }),
    );
  });

  test('lambda = 0 integrates: psi = dt', () => {
    expect(discrete([0, 0], 0.25, 'zoh')).toEqual({ step: [1, 0], psi: [0.25, 0], zeta: [0, 0] });
  });

  test('a tiny lambda, whose square is 0 in float64', () => {
    expect(discrete([-1e-200, 1e-200], 0.5, 'zoh').psi[0]).toBeCloseTo(0.5, 15);
  });
});

test('bilinear: (1 + z/2) / (1 - z/2) and dt / (1 - z/2)', () => {
  fc.assert(
    fc.property(decay, frequency, fc.double({ min: 1e-5, max: 1, noNaN: true }), (a, w, dt) => {
      const half: Complex = [(-a * dt) / 2, (w * dt) / 2];
      const { step, psi } = discrete([-a, w], dt, 'bilinear');
      const below: Complex = [1 - half[0], -half[1]];
      const want = over([1 + half[0], half[1]], below);
      expect(Math.hypot(step[0] - want[0], step[1] - want[1])).toBeLessThan(1e-14);
      expect(gap(psi, over([dt, 0], below))).toBeLessThan(1e-15);
    }),
  );
});

test('both rules keep decaying modes decaying', () => {
  fc.assert(
    fc.property(decay, frequency, fc.double({ min: 1e-5, max: 1, noNaN: true }), (a, w, dt) => {
      for (const rule of ['zoh', 'bilinear'] as const) expect(discrete([-a, w], dt, rule).zeta[0]).toBeLessThan(0);
    }),
  );
});

test('a step for each mode, or an error that counts both', () => {
  const lambda = { re: Float64Array.of(-1, -2), im: Float64Array.of(0, 3) };
  const { psi } = discretise(lambda, [0.1, 0.2]);
  expect(psi.re[1]).toBe(discrete([-2, 3], 0.2, 'zoh').psi[0]);
  expect(() => discretise(lambda, [0.1])).toThrow('dt must be one number or one for each of 2 modes, got 1');
});
