/** Transfer functions of HiPPO-LegS and of diagonal forms of it, one input and one output, on the imaginary axis. */
import { Matrix } from 'ml-matrix';
import { type ComplexArray, complexFrom } from './complexArray.js';
import { discretise } from './discretise.js';
import { eigen } from './eigen.js';
import { legsMatrix, legsNormalPart, legsResolvent } from './hippo.js';
import type { ModeBasis } from './modeBasis.js';

/** [re, im] */
export type Complex = readonly [number, number];

/** G(s) = sum W / (s - lambda), and the same of the conjugates where one mode of each pair is kept. */
export interface ModalSystem {
  /** [M] */
  lambda: ComplexArray;
  /** C V V^{-1} B by mode, [M] */
  weights: ComplexArray;
  conjugate: boolean;
}

/** The modes of (b [N], c [N]) in a basis. */
export function modalSystem(basis: ModeBasis, b: ArrayLike<number>, c: ArrayLike<number>): ModalSystem {
  const into = basis.input(Matrix.columnVector(Array.from(b)));
  const out = basis.output(Matrix.rowVector(Array.from(c)));
  const weights = complexFrom(basis.modes, (m) => [
    out.re[m] * into.re[m] - out.im[m] * into.im[m],
    out.re[m] * into.im[m] + out.im[m] * into.re[m],
  ]);
  return { lambda: basis.lambda, weights, conjugate: basis.conjugate };
}

/** G(i omega) of a diagonal form. */
export function modalTransfer({ lambda, weights, conjugate }: ModalSystem, omega: number): Complex {
  let [re, im] = [0, 0];
  for (let m = 0; m < lambda.re.length; m++)
    for (const sign of conjugate ? [1, -1] : [1]) {
      const [x, y] = quotient([weights.re[m], sign * weights.im[m]], [-lambda.re[m], omega - sign * lambda.im[m]]);
      re += x;
      im += y;
    }
  return [re, im];
}

/** G(i omega) = c (i omega - A)^{-1} b of HiPPO-LegS itself, O(N). */
export function legsTransfer(b: ArrayLike<number>, c: ArrayLike<number>, omega: number): Complex {
  const x = legsResolvent(omega, b);
  let [re, im] = [0, 0];
  for (let n = 0; n < b.length; n++) {
    re += c[n] * x.re[n];
    im += c[n] * x.im[n];
  }
  return [re, im];
}

/** Frequencies at which S4D-LegS's transfer function has a spike: the eigenfrequencies of the normal part, [N/2] ascending. */
export const spikeFrequencies = (size: number): Float64Array => eigen(legsNormalPart(size)).lambda.im;

/** `points` frequencies, evenly spaced in log from 0.01 to 4 N^2, beyond the largest spike (N^2 / pi). */
export function frequencyGrid(size: number, points = 3000): Float64Array {
  const [low, high] = [Math.log(1e-2), Math.log(4 * size * size)];
  return Float64Array.from({ length: points }, (_, i) => Math.exp(low + ((high - low) * i) / (points - 1)));
}

/** The largest |f - g| over some frequencies. */
export function supError(
  f: (omega: number) => Complex,
  g: (omega: number) => Complex,
  omegas: Iterable<number>,
): { error: number; omega: number } {
  let worst = { error: 0, omega: Number.NaN };
  for (const omega of omegas) {
    const error = distance(f(omega), g(omega));
    if (error > worst.error || Number.isNaN(error)) worst = { error, omega };
  }
  return worst;
}

/** |a - b| */
export const distance = (a: Complex, b: Complex): number => Math.hypot(a[0] - b[0], a[1] - b[1]);

/** H(e^{i theta}) of a diagonal form after zero-order hold: what a sinusoid of theta radians a step comes out as. */
export function modalDiscreteTransfer({ lambda, weights, conjugate }: ModalSystem, dt: number, theta: number): Complex {
  const { zeta, psi } = discretise(lambda, dt);
  let [re, im] = [0, 0];
  for (let m = 0; m < lambda.re.length; m++)
    for (const sign of conjugate ? [1, -1] : [1]) {
      const size = Math.exp(zeta.re[m]);
      const below: Complex = [
        Math.cos(theta) - size * Math.cos(zeta.im[m]),
        Math.sin(theta) - sign * size * Math.sin(zeta.im[m]),
      ];
      const [wr, wi, pr, pi] = [weights.re[m], sign * weights.im[m], psi.re[m], sign * psi.im[m]];
      const [x, y] = quotient([wr * pr - wi * pi, wr * pi + wi * pr], below);
      re += x;
      im += y;
    }
  return [re, im];
}

/** The same of HiPPO-LegS itself, through the exponential of its matrix. */
export function legsDiscreteTransfer(b: ArrayLike<number>, c: ArrayLike<number>, dt: number, theta: number): Complex {
  const size = b.length;
  const generator = Matrix.zeros(size + 1, size + 1); // [[A, b], [0, 0]], so that exp gives Abar and Bbar
  generator.setSubMatrix(legsMatrix(size), 0, 0);
  for (let n = 0; n < size; n++) generator.set(n, size, b[n]);
  const step = exponential(generator.mul(dt));
  const [cos, sin] = [Math.cos(theta), Math.sin(theta)];
  const x: Complex[] = [];
  let [re, im] = [0, 0];
  for (let n = 0; n < size; n++) {
    let [top, topIm] = [step.get(n, size), 0]; // (e^{i theta} - Abar) x = Bbar, Abar lower triangular
    for (let k = 0; k < n; k++) {
      top += step.get(n, k) * x[k][0];
      topIm += step.get(n, k) * x[k][1];
    }
    x.push(quotient([top, topIm], [cos - step.get(n, n), sin]));
    re += c[n] * x[n][0];
    im += c[n] * x[n][1];
  }
  return [re, im];
}

/** exp(A) by its Taylor series on A / 2^s and s squarings. */
function exponential(a: Matrix): Matrix {
  const squarings = Math.max(0, Math.ceil(Math.log2(Math.max(a.norm(), Number.MIN_VALUE))) + 1);
  const scaled = Matrix.mul(a, 2 ** -squarings); // norm at most 1/2: 18 terms reach float64
  let [sum, term] = [Matrix.eye(a.rows), Matrix.eye(a.rows)];
  for (let k = 1; k <= 18; k++) {
    term = term.mmul(scaled).div(k);
    sum = Matrix.add(sum, term);
  }
  for (let s = 0; s < squarings; s++) sum = sum.mmul(sum);
  return sum;
}

const quotient = ([a, b]: Complex, [c, d]: Complex): Complex => {
  const below = c * c + d * d;
  return [(a * c + b * d) / below, (b * c - a * d) / below];
};
