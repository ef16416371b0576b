/** Perturb then diagonalise: stored vectors, stability, gradients of the objective, determinism, errors. */
import fc from 'fast-check';
import { Matrix } from 'ml-matrix';
import { describe, expect, test } from 'vitest';
import { Rng } from '../../src/rng.js';
import { discretise } from '../../src/ssm/discretise.js';
import { spectralNorm } from '../../src/ssm/eigen.js';
import { legsInput, legsMatrix } from '../../src/ssm/hippo.js';
import { ModeBasis } from '../../src/ssm/modeBasis.js';
import { firstOrderBound, generalBound, skewBound } from '../../src/ssm/ptd/bounds.js';
import { type PtdOptions, perturbThenDiagonalise } from '../../src/ssm/ptd/index.js';
import { phi } from '../../src/ssm/ptd/objective.js';
import { frequencyGrid, legsTransfer, modalSystem, modalTransfer, supError } from '../../src/ssm/transfer.js';
import { type Complex, impulseResponse, transfer } from '../oracle/stateSpace.js';
import { type GoldenEntry, goldenEntries, readGoldenNumbers } from '../support/golden.js';

describe.each(goldenEntries('ptd_init'))('$file', ({ file, config, tolerances }: GoldenEntry) => {
  const size = Number(config.N);
  const stored = Object.fromEntries(Object.entries(readGoldenNumbers(file)).map(([name, { data }]) => [name, data]));
  const rows = (x: ArrayLike<number>, width: number) =>
    Array.from({ length: x.length / width }, (_, i) => Array.from({ length: width }, (_, j) => x[i * width + j]));
  const e = rows(stored.E, size);
  const ptd: PtdOptions = { method: 'given', matrix: e };
  const all = new ModeBasis({ stateSize: size, ptd, conjugate: false });
  const half = new ModeBasis({ stateSize: size, ptd });
  const [bs, cs] = [[0, 1].map((i) => rows(stored.B, 2).map((row) => row[i])), rows(stored.C, size)];
  /** By imaginary, then real part. */
  const order = Array.from(all.lambda.re, (_, n) => n).sort(
    (i, j) => all.lambda.im[i] - all.lambda.im[j] || all.lambda.re[i] - all.lambda.re[j],
  );
  const close = (name: string, got: ArrayLike<number>) => {
    const error = Math.max(...Array.from(stored[name], (want, i) => Math.abs(want - got[i])));
    expect(error, name).toBeLessThanOrEqual(tolerances[name].max_abs);
  };

  test('eigenvalues, their condition number, the number of real ones', () => {
    close(
      'eigenvalues',
      order.flatMap((n) => [all.lambda.re[n], all.lambda.im[n]]),
    );
    close('eigvec_cond', [all.kappa]);
    close('norm_E', [spectralNorm(new Matrix(e))]);
    close('max_real_eig', [Math.max(...all.lambda.re)]);
    expect(all.blocks[0].reals).toBe(stored.num_real_eigs[0]);
    expect(half.modes).toBe((size + stored.num_real_eigs[0]) / 2);
  });

  test('residues C V V^{-1} B', () => {
    const weights = cs.flatMap((c) => bs.map((b) => modalSystem(all, b, c).weights));
    close(
      'residues',
      order.flatMap((n) => weights.flatMap(({ re, im }) => [re[n], im[n]])),
    );
  });

  test.each([
    ['all modes', all],
    ['one of each pair', half],
  ])('transfer functions, %s', (_, basis) => {
    const normal = new ModeBasis({ stateSize: size });
    const over = (of: (b: number[], c: number[]) => (omega: number) => readonly number[]) => {
      const systems = cs.map((c) => bs.map((b) => of(b, c)));
      return Array.from(stored.omega, (omega) => systems.flatMap((row) => row.flatMap((g) => [...g(omega)]))).flat();
    };
    close(
      'G_perturbed',
      over((b, c) => {
        const system = modalSystem(basis, b, c);
        return (omega) => modalTransfer(system, omega);
      }),
    );
    close(
      'G_hippo_exact',
      over((b, c) => (omega) => legsTransfer(b, c, omega)),
    );
    close(
      'G_s4d_legs',
      over((b, c) => {
        const halved = b.map((x) => x / 2);
        const system = modalSystem(normal, halved, c);
        return (omega) => modalTransfer(system, omega);
      }),
    );
  });

  test.each([
    ['all modes', all, 1],
    ['one of each pair', half, 2],
  ])('impulse response after zero-order hold, %s', (_, basis, factor) => {
    const { zeta, psi } = discretise(basis.lambda, Number(config.dt));
    const list = (x: { re: Float64Array; im: Float64Array }) => Array.from(x.re, (re, n): Complex => [re, x.im[n]]);
    const kernels = cs.flatMap((c) =>
      bs.flatMap((b) => {
        const { weights } = modalSystem(basis, b, c);
        const parts = { zeta: list(zeta), psi: list(psi), b: list(weights), c: list(zeta).map((): Complex => [1, 0]) };
        return impulseResponse(parts, Number(config.kernel_len), factor);
      }),
    );
    close('kernel_zoh', kernels);
  });
});

describe('stability and size', () => {
  const cases = fc.record({
    size: fc.integer({ min: 1, max: 16 }).map((half) => 2 * half),
    exponent: fc.double({ min: -3, max: 1, noNaN: true }),
    seed: fc.nat(),
  });

  test('a skew perturbation of any size leaves every mode decaying at 1/2 or faster', () => {
    fc.assert(
      fc.property(cases, ({ size, exponent, seed }) => {
        const { lambda, kappa, eps } = perturbThenDiagonalise(size, { epsRel: 10 ** exponent, seed });
        const norm = spectralNorm(legsMatrix(size));
        expect(Math.max(...lambda.re)).toBeLessThanOrEqual(-0.5 + 1e-13 * kappa * norm);
        expect(eps / norm).toBeCloseTo(10 ** exponent, 9);
        expect(kappa).toBeLessThan(1e8);
      }),
    );
  });

  test('a Gaussian one below 1/2 does as well, and moves the transfer function less than the bound', () => {
    const eps = fc.double({ min: 0.01, max: 0.49, noNaN: true });
    fc.assert(
      fc.property(cases, eps, ({ size, seed }, epsAbs) => {
        const basis = new ModeBasis({ stateSize: size, ptd: { method: 'random', epsAbs, seed } });
        expect(Math.max(...basis.lambda.re)).toBeLessThan(0);
        const c = unit(new Rng(seed), size);
        const b = legsInput(size).map((x) => x / size); // ||B|| = N
        expect(deviation(basis, b, c)).toBeLessThan(generalBound(epsAbs));
      }),
      { numRuns: 30 },
    );
  });

  test('a skew one moves it less than its bound, which needs no small size', () => {
    fc.assert(
      fc.property(cases, ({ size, exponent, seed }) => {
        const basis = new ModeBasis({ stateSize: size, ptd: { epsAbs: 10 ** exponent, seed } });
        const b = legsInput(size).map((x) => x / size);
        expect(deviation(basis, b, unit(new Rng(seed), size))).toBeLessThan(skewBound(10 ** exponent));
      }),
      { numRuns: 30 },
    );
  });

  test('bounds: their values, and where there is none', () => {
    expect(generalBound(0.25)).toBe(2);
    expect(generalBound(0.5)).toBe(Number.POSITIVE_INFINITY);
    expect(skewBound(3)).toBe(12);
    expect(firstOrderBound(64, 0.1)).toBeCloseTo(0.1 * (2 * Math.log(64) + 4), 14);
  });

  test('the diagonal form is the transfer function of A + E, by elimination', () => {
    const { e } = perturbThenDiagonalise(12, { seed: 4 });
    const basis = new ModeBasis({ stateSize: 12, ptd: { seed: 4 } });
    const [b, c] = [legsInput(12), unit(new Rng(1), 12)];
    const system = modalSystem(basis, b, c);
    for (const omega of [0, 0.3, 5, 45, 1000]) {
      const want = transfer(Matrix.add(legsMatrix(12), e).to2DArray(), b, c, omega);
      const got = modalTransfer(system, omega);
      expect(Math.hypot(got[0] - want[0], got[1] - want[1])).toBeLessThan(1e-12);
    }
  });
});

describe('the objective', () => {
  test.each([
    { size: 5, skew: false },
    { size: 16, skew: true },
    { size: 16, skew: false },
  ])('its gradient is that of differences, $size states, skew $skew', ({ size, skew }) => {
    const draw = (rng: Rng) => {
      const x = Matrix.zeros(size, size);
      for (let i = 0; i < size; i++)
        for (let j = 0; j < (skew ? i : size); j++) {
          x.set(i, j, rng.normal());
          if (skew) x.set(j, i, -x.get(i, j));
        }
      return x;
    };
    const rng = new Rng(size);
    const [a, e] = [legsMatrix(size), draw(rng).mul(0.5)];
    for (let k = 0; k < 3; k++) {
      const direction = draw(rng);
      const at = (h: number) => Math.log(phi(a, Matrix.add(e, Matrix.mul(direction, h)), 3).value);
      const slope = (at(1e-5) - at(-1e-5)) / 2e-5;
      const { logGradient } = phi(a, e, 3);
      const want = Matrix.mul(logGradient, direction).sum();
      expect(Math.abs(slope - want)).toBeLessThan(1e-6 * (1 + Math.abs(want)));
    }
  });

  test('optimising beats a random perturbation of the same size by far, keeps E skew and modes stable', () => {
    const found = perturbThenDiagonalise(16, { method: 'optimised', steps: 150 });
    const random = perturbThenDiagonalise(16, { method: 'skew', epsAbs: found.eps });
    expect(found.kappa).toBeLessThan(0.5 * random.kappa);
    expect(found.kappa + 100 * found.eps).toBeLessThan(125);
    expect(Matrix.add(found.e, found.e.transpose()).norm()).toBe(0);
    expect(Math.max(...found.lambda.re)).toBeLessThan(-0.49);
  });

  test('a smaller gamma allows a larger E and a smaller kappa', () => {
    const [strict, free] = [100, 1].map((gamma) =>
      perturbThenDiagonalise(16, { method: 'optimised', steps: 150, gamma }),
    );
    expect(free.kappa).toBeLessThan(0.5 * strict.kappa);
    expect(free.eps).toBeGreaterThan(2 * strict.eps);
  });
});

describe('seeds, blocks and real eigenvalues', () => {
  const numbers = (x: ModeBasis) => [...x.lambda.re, ...x.lambda.im];

  test('the seed decides everything', () => {
    for (const method of ['skew', 'random', 'optimised'] as const) {
      const of = (seed: number) =>
        numbers(new ModeBasis({ stateSize: 8, ptd: { method, epsAbs: 0.3, steps: 5, seed } }));
      expect(of(1)).toEqual(of(1));
      expect(of(1)).not.toEqual(of(2));
    }
  });

  test('each block draws its own E, or all have the same', () => {
    const of = (blocks: 'own' | 'same') => new ModeBasis({ stateSize: 16, blocks: 2, ptd: { blocks, seed: 3 } });
    const [own, same] = [of('own'), of('same')];
    expect([...own.blocks[0].lambda.re]).toEqual([...same.blocks[0].lambda.re]);
    expect([...own.blocks[1].lambda.re]).not.toEqual([...own.blocks[0].lambda.re]);
    expect([...same.blocks[1].lambda.re]).toEqual([...same.blocks[0].lambda.re]);
  });

  test('redraw: no real eigenvalue is left, so there are N / 2 modes', () => {
    const seeds = Array.from({ length: 8 }, (_, seed) => seed);
    const of = (realModes: 'halve' | 'redraw') =>
      seeds.map((seed) => new ModeBasis({ stateSize: 24, ptd: { seed, realModes } }).modes);
    expect(of('redraw')).toEqual(seeds.map(() => 12));
    expect(Math.max(...of('halve'))).toBeGreaterThan(12);
  });
});

describe('errors', () => {
  test('an unstable mode is refused, or clipped where that is asked for', () => {
    const large: PtdOptions = { method: 'random', epsRel: 0.1 };
    expect(() => perturbThenDiagonalise(32, large)).toThrow(
      /method "random" must leave every mode decaying, got a real part of \d.*; use method "skew", a size below 1\/2 \(epsAbs\), or unstable "clip"/,
    );
    const { lambda } = perturbThenDiagonalise(32, { ...large, unstable: 'clip' });
    expect(Math.max(...lambda.re)).toBe(-1e-4);
  });

  test.each<[string, PtdOptions, string]>([
    ['both sizes', { epsRel: 0.1, epsAbs: 1 }, 'give epsRel or epsAbs, not both, got 0.1 and 1'],
    ['no size', { epsRel: 0 }, 'epsRel must be a number > 0, got 0'],
    ['steps', { method: 'optimised', steps: 1.5 }, 'steps must be an integer > 0, got 1.5'],
    ['no matrix', { method: 'given' }, 'belongs to method "given", got method "given" and no matrix'],
    ['a matrix too much', { matrix: [[0]] }, 'belongs to method "given", got method "skew" and a matrix'],
    ['a wrong matrix', { method: 'given', matrix: [[0]] }, 'matrix must be 4 rows of 4 numbers, got 1 rows of 1'],
    ['redraw', { method: 'optimised', realModes: 'redraw' }, 'needs method "skew" or "random", got "optimised"'],
    ['method', { method: 'eig' as 'skew' }, 'method must be "random", "skew", "optimised" or "given", got "eig"'],
  ])('%s', (_, options, message) => {
    expect(() => perturbThenDiagonalise(4, options)).toThrow(message);
  });

  test('a perturbation too small to help is refused', () => {
    expect(() => perturbThenDiagonalise(64, { epsAbs: 1e-13 })).toThrow('perturb the matrix more');
  });
});

function unit(rng: Rng, size: number): Float64Array {
  const x = Float64Array.from({ length: size }, () => rng.normal());
  const norm = Math.hypot(...x);
  return x.map((value) => value / norm);
}

/** sup |G_E - G| on the imaginary axis. */
function deviation(basis: ModeBasis, b: Float64Array, c: Float64Array): number {
  const system = modalSystem(basis, b, c);
  const exact = (omega: number) => legsTransfer(b, c, omega);
  return supError((omega) => modalTransfer(system, omega), exact, frequencyGrid(basis.stateSize, 200)).error;
}
