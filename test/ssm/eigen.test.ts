/** Eigenvectors of real matrices: the matrix comes back, and so does every product through the modes. */
import fc from 'fast-check';
import { Matrix, SVD } from 'ml-matrix';
import { describe, expect, test } from 'vitest';
import { Rng } from '../../src/rng.js';
import { eigen, intoModes, outOfModes, recompose } from '../../src/ssm/eigen.js';
import { legsMatrix, legsNormalPart } from '../../src/ssm/hippo.js';

const randomMatrix = (rng: Rng, rows: number, columns = rows) =>
  Matrix.from1DArray(
    rows,
    columns,
    Array.from({ length: rows * columns }, () => rng.normal()),
  );

describe('random matrices', () => {
  const cases = fc.record({ size: fc.integer({ min: 1, max: 24 }), seed: fc.nat() });

  test('V Lambda V^{-1} is the matrix again, to kappa roundings', () => {
    fc.assert(
      fc.property(cases, ({ size, seed }) => {
        const a = randomMatrix(new Rng(seed), size);
        const found = eigen(a);
        expect(found.residual).toBeLessThan(2e-14);
        const error = Matrix.sub(recompose(found), a).norm() / a.norm();
        expect(error).toBeLessThan(1e-14 + 1e-15 * found.kappa * size);
        expect(2 * found.pairs + found.reals).toBe(size);
        expect(found.kappa).toBeGreaterThanOrEqual(1 - 1e-12);
        expect(found.kappa).toBeLessThan(Number.POSITIVE_INFINITY);
      }),
    );
  });

  test('C V times V^{-1} B is C B: twice the real part of pairs, once that of real modes', () => {
    fc.assert(
      fc.property(cases, ({ size, seed }) => {
        const rng = new Rng(seed);
        const found = eigen(randomMatrix(rng, size));
        const [b, c] = [randomMatrix(rng, size, 2), randomMatrix(rng, 3, size)];
        const [into, out] = [intoModes(found, b), outOfModes(found, c)];
        const modes = found.pairs + found.reals;
        for (let o = 0; o < 3; o++)
          for (let i = 0; i < 2; i++) {
            let sum = 0;
            for (let m = 0; m < modes; m++) {
              const [p, q] = [o * modes + m, 2 * m + i];
              sum += (m < found.pairs ? 2 : 1) * (out.re[p] * into.re[q] - out.im[p] * into.im[q]);
            }
            const scale = b.norm() * c.norm();
            expect(Math.abs(sum - c.mmul(b).get(o, i))).toBeLessThan(1e-14 * scale * (1 + found.kappa));
          }
      }),
    );
  });

  test('each kept vector is a unit eigenvector, and kappa that of all of them', () => {
    fc.assert(
      fc.property(cases, ({ size, seed }) => {
        const a = randomMatrix(new Rng(seed), size);
        const { lambda, pairs, reals, basis, kappa } = eigen(a);
        const vectors = outOfModes(eigen(a), Matrix.eye(size)); // rows of V
        const modes = pairs + reals;
        for (let m = 0; m < modes; m++) {
          const v = Array.from({ length: size }, (_, i) => [vectors.re[i * modes + m], vectors.im[i * modes + m]]);
          expect(Math.hypot(...v.flat())).toBeCloseTo(1, 13);
          for (let i = 0; i < size; i++) {
            const moved = a.getRow(i).reduce(([x, y], k, j) => [x + k * v[j][0], y + k * v[j][1]], [0, 0]);
            const want = [
              lambda.re[m] * v[i][0] - lambda.im[m] * v[i][1],
              lambda.re[m] * v[i][1] + lambda.im[m] * v[i][0],
            ];
            expect(Math.hypot(moved[0] - want[0], moved[1] - want[1])).toBeLessThan(1e-12 * a.norm());
          }
        }
        // V as a real matrix of twice the size has its singular values, each twice
        const whole = Array.from({ length: size }, (_, i) =>
          Array.from({ length: size }, (_, j): [number, number] => {
            const [m, sign] = j < 2 * pairs ? [j >> 1, j % 2 ? -1 : 1] : [j - pairs, 1];
            return [vectors.re[i * modes + m], sign * vectors.im[i * modes + m]];
          }),
        );
        const doubled = new Matrix([
          ...whole.map((row) => [...row.map(([re]) => re), ...row.map(([, im]) => -im)]),
          ...whole.map((row) => [...row.map(([, im]) => im), ...row.map(([re]) => re)]),
        ]);
        const { diagonal } = new SVD(doubled);
        expect(diagonal[0] / diagonal[2 * size - 1] / kappa).toBeCloseTo(1, 9);
        expect(basis.rows).toBe(size);
      }),
      { numRuns: 40 },
    );
  });
});

describe('HiPPO-LegS', () => {
  test.each([8, 64])('the normal part of %i states has orthonormal eigenvectors and real parts of -1/2', (size) => {
    const { lambda, kappa } = eigen(legsNormalPart(size));
    expect(kappa - 1).toBeLessThan(1e-11);
    for (const re of lambda.re) expect(re).toBeCloseTo(-0.5, 11);
  });

  test('unperturbed it has no usable eigenvectors: an error, not a wrong answer', () => {
    expect(() => eigen(legsMatrix(64))).toThrow(/condition number below 10000000000, got .*; perturb the matrix more/);
  });
});

test('what is not a finite square matrix is refused', () => {
  expect(() => eigen(Matrix.zeros(2, 3))).toThrow('expected a square matrix, got 2 x 3');
  expect(() => eigen(new Matrix([[Number.NaN]]))).toThrow('expected finite entries');
});
