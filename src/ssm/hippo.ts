/**
 * HiPPO-LegS (Gu et al. 2020, https://arxiv.org/abs/2008.07669), the state space behind S4, S4D and S5, and what is known of it exactly.
 * A_nn = -(n + 1), A_nk = -sqrt((2n + 1)(2k + 1)) for n > k, else 0; B_n = sqrt(2n + 1).
 */
import { Matrix } from 'ml-matrix';
import { type ComplexArray, complexZeros } from './complexArray.js';

/** A [N, N]. */
export function legsMatrix(size: number): Matrix {
  const a = Matrix.zeros(size, size);
  for (let n = 0; n < size; n++) {
    a.set(n, n, -(n + 1));
    for (let k = 0; k < n; k++) a.set(n, k, -Math.sqrt((2 * n + 1) * (2 * k + 1)));
  }
  return a;
}

/** B [N]. */
export const legsInput = (size: number): Float64Array =>
  Float64Array.from({ length: size }, (_, n) => Math.sqrt(2 * n + 1));

/** The normal part A + B B^T / 2 = -I/2 + K, K skew: its eigenvectors are orthonormal, its eigenvalues -1/2 +- i w. */
export function legsNormalPart(size: number): Matrix {
  const a = Matrix.zeros(size, size);
  for (let n = 0; n < size; n++) {
    a.set(n, n, -0.5);
    for (let k = 0; k < n; k++) {
      const half = Math.sqrt((2 * n + 1) * (2 * k + 1)) / 2;
      a.set(n, k, -half);
      a.set(k, n, half);
    }
  }
  return a;
}

/** (i omega - A)^{-1} b for b [N], by forward substitution: A is lower triangular of rank one below its diagonal, so O(N). */
export function legsResolvent(omega: number, b: ArrayLike<number>): ComplexArray {
  const x = complexZeros(b.length);
  let [sumRe, sumIm] = [0, 0]; // sum_{k<n} sqrt(2k + 1) x_k
  for (let n = 0; n < b.length; n++) {
    const root = Math.sqrt(2 * n + 1);
    const [re, im] = [b[n] - root * sumRe, -root * sumIm];
    const [p, q] = [n + 1, omega];
    const below = p * p + q * q;
    x.re[n] = (re * p + im * q) / below;
    x.im[n] = (im * p - re * q) / below;
    sumRe += root * x.re[n];
    sumIm += root * x.im[n];
  }
  return x;
}

/**
 * w_N(i omega) = prod_{k<N} (i omega - k) / (i omega + k + 1). With it B^T (s - A)^{-1} B = 1 - w_N(s), and the diagonal model of
 * the normal part with input B/2 has transfer function G / (1 + w_N) where A has G: the exact form of S4D-LegS's error.
 * @returns [re, im]
 */
export function legsBlaschke(size: number, omega: number): [number, number] {
  let [re, im] = [1, 0];
  for (let k = 0; k < size; k++) {
    const below = (k + 1) ** 2 + omega ** 2; // (i w - k)(k + 1 - i w) = w^2 - k(k + 1) + i w (2k + 1)
    const [a, b] = [(omega ** 2 - k * (k + 1)) / below, (omega * (2 * k + 1)) / below];
    [re, im] = [re * a - im * b, re * b + im * a];
  }
  return [re, im];
}
