/**
 * Phi(E) = kappa(V) + gamma ||E||_2 where A + E = V Lambda V^{-1} with unit columns (perturb-then-diagonalise, Yu et al. 2023,
 * https://arxiv.org/abs/2310.01698, section 3), and its gradient.
 *
 * A simple eigenvalue moves by d lambda_j = F_jj with F = V^{-1} dE V, its eigenvector by dV = V X, X_ij = F_ij / (lambda_j - lambda_i)
 * off the diagonal; X_jj = -Re sum_{i != j} (V^H V)_ji X_ij keeps the column at unit length. With the extreme singular triplets
 * (sigma, u, v) of V, d ln kappa = Re(u_1^H dV v_1) / sigma_1 - Re(u_N^H dV v_N) / sigma_N; as V^H u = sigma v, that is
 * Re sum conj(P_ij) X_ij with P = v_1 v_1^H - v_N v_N^H. Gathering terms gives G = Re(V^{-T} S V^T),
 * S_ij = conj(P_ij - P_jj (V^H V)_ij) / (lambda_j - lambda_i). In the real basis R of `eigen.ts` (V = R T, T unitary, 2 x 2 blocks):
 * G = R^{-T} (conj(T) S T^T) R^T, all real.
 */
import { EVD, inverse, Matrix } from 'ml-matrix';
import { type ComplexArray, complexFrom } from '../complexArray.js';
import { type Eigenbasis, eigenbasis } from '../eigen.js';

/** The objective at one E. */
export interface Phi {
  value: number;
  kappa: number;
  /** ||E||_2. */
  eps: number;
  /** d ln(value) / dE, [N, N]. */
  logGradient: Matrix;
}

/** The objective and its gradient at `e`. */
export function phi(a: Matrix, e: Matrix, gamma: number): Phi {
  const found = eigenbasis(Matrix.add(a, e));
  const gram = found.basis.transpose().mmul(found.basis);
  const { realEigenvalues: squares, eigenvectorMatrix } = new EVD(gram, { assumeSymmetric: true }); // squared singular values, ascending
  const kappa = Math.sqrt(squares[a.rows - 1] / Math.max(squares[0], Number.MIN_VALUE));
  const { norm: eps, gradient } = spectralNormGradient(e);
  const value = kappa + gamma * eps;
  const logGradient = logKappaGradient(found, gram, eigenvectorMatrix)
    .mul(kappa / value)
    .add(gradient.mul(gamma / value));
  return { value, kappa, eps, logGradient };
}

/** ||E||_2 and its gradient u v^T, by the eigenvectors of E^T E: three times as fast as an SVD, and precise for the largest one. */
function spectralNormGradient(e: Matrix): { norm: number; gradient: Matrix } {
  const { realEigenvalues, eigenvectorMatrix } = new EVD(e.transpose().mmul(e), { assumeSymmetric: true });
  const norm = Math.sqrt(Math.max(realEigenvalues[e.rows - 1], 0));
  const v = eigenvectorMatrix.getColumnVector(e.rows - 1);
  return { norm, gradient: norm > 0 ? e.mmul(v).div(norm).mmul(v.transpose()) : Matrix.zeros(e.rows, e.rows) };
}

/**
 * d ln kappa / dE, [N, N].
 * @param gram basis^T basis
 * @param z right singular vectors of the real basis as columns, that of the smallest singular value first
 */
function logKappaGradient(found: Eigenbasis, gram: Matrix, z: Matrix): Matrix {
  const { basis } = found;
  const s = realBlocks(found, gram, modal(found, z.getColumn(z.columns - 1)), modal(found, z.getColumn(0)));
  return inverse(basis).transpose().mmul(s).mmul(basis.transpose());
}

/** T^H z of one of each pair, then of the real eigenvalues: the right singular vector of V for that of its real basis. */
const modal = ({ pairs, reals }: Eigenbasis, z: readonly number[]): ComplexArray =>
  complexFrom(pairs + reals, (m) =>
    m < pairs ? [z[2 * m] * Math.SQRT1_2, -z[2 * m + 1] * Math.SQRT1_2] : [z[m + pairs], 0],
  );

type Complex = readonly [number, number];

/** conj(T) S T^T, [N, N], block by block. */
function realBlocks(found: Eigenbasis, gram: Matrix, v1: ComplexArray, vN: ComplexArray): Matrix {
  const { lambda, pairs, reals } = found;
  const out = Matrix.zeros(gram.rows, gram.rows);
  const at = (m: number) => (m < pairs ? 2 * m : m + pairs);
  /** S between mode i and mode j, or the conjugate of mode j. */
  const entry = (i: number, j: number, conjugate: boolean): Complex => {
    if (i === j && !conjugate) return [0, 0];
    const sign = conjugate ? -1 : 1;
    const [gapRe, gapIm] = [lambda.re[j] - lambda.re[i], sign * lambda.im[j] - lambda.im[i]];
    const [gRe, gIm] = gramEntry(gram, at(i), i < pairs, at(j), j < pairs, sign);
    const diagonal = v1.re[j] ** 2 + v1.im[j] ** 2 - vN.re[j] ** 2 - vN.im[j] ** 2;
    const [a, b] = [product(v1, i, j, sign), product(vN, i, j, sign)];
    const [re, im] = [a[0] - b[0] - diagonal * gRe, -(a[1] - b[1] - diagonal * gIm)];
    const below = gapRe ** 2 + gapIm ** 2;
    return [(re * gapRe + im * gapIm) / below, (im * gapRe - re * gapIm) / below];
  };
  for (let i = 0; i < pairs + reals; i++)
    for (let j = 0; j < pairs + reals; j++) {
      const [re, im] = entry(i, j, false);
      const [p, q] = [at(i), at(j)];
      if (i < pairs && j < pairs) {
        const [re2, im2] = entry(i, j, true);
        out.set(p, q, re + re2);
        out.set(p, q + 1, im2 - im);
        out.set(p + 1, q, im + im2);
        out.set(p + 1, q + 1, re - re2);
      } else if (i < pairs) {
        out.set(p, q, Math.SQRT2 * re);
        out.set(p + 1, q, Math.SQRT2 * im);
      } else if (j < pairs) {
        out.set(p, q, Math.SQRT2 * re);
        out.set(p, q + 1, -Math.SQRT2 * im);
      } else out.set(p, q, re);
    }
  return out;
}

/** v_i conj(v_j), where `sign` -1 stands for the conjugate of mode j. */
const product = (v: ComplexArray, i: number, j: number, sign: number): Complex => [
  v.re[i] * v.re[j] + sign * v.im[i] * v.im[j],
  v.im[i] * v.re[j] - sign * v.re[i] * v.im[j],
];

/** (V^H V)_ij from the real Gram matrix: t_i^H W t_j with t = (1, +-i) / sqrt2 for one of a pair, 1 for a real mode. */
function gramEntry(w: Matrix, p: number, pairP: boolean, q: number, pairQ: boolean, sign: number): Complex {
  const a = w.get(p, q);
  const b = pairQ ? w.get(p, q + 1) : 0;
  const c = pairP ? w.get(p + 1, q) : 0;
  const d = pairP && pairQ ? w.get(p + 1, q + 1) : 0;
  const scale = (pairP ? Math.SQRT1_2 : 1) * (pairQ ? Math.SQRT1_2 : 1);
  return [scale * (a + sign * d), scale * (sign * b - c)];
}
