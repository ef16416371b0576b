/**
 * Eigenvectors of a real matrix, kept real: a pair lambda, conj(lambda) with unit eigenvectors v, conj(v) is held as the two columns
 * sqrt2 Re v, sqrt2 Im v. The matrix V of eigenvectors is that basis times a unitary matrix, so both have one condition number, and
 * inverting the real one inverts V.
 */
import { EVD, inverse, type Matrix, SVD } from 'ml-matrix';
import { type ComplexArray, complexZeros } from './complexArray.js';

/** Eigenvalues and eigenvectors of a real matrix [N, N], N = 2 pairs + reals. */
export interface Eigenbasis {
  /** One of each pair (imaginary part > 0, ascending), then the real eigenvalues (ascending): [pairs + reals]. */
  lambda: ComplexArray;
  pairs: number;
  reals: number;
  /** [N, N]: columns 2i, 2i + 1 are sqrt2 Re v_i, sqrt2 Im v_i; the last ones are real unit eigenvectors. */
  basis: Matrix;
}

/** A = V Lambda V^{-1}, checked. */
export interface Eigen extends Eigenbasis {
  /** The inverse of `basis`. */
  inverse: Matrix;
  /** The 2-norm condition number of V (unit columns), and so of `basis`. */
  kappa: number;
  /** ||A V - V Lambda||_F / ||A||_F. */
  residual: number;
}

/** What `eigen` accepts of its own result. */
const MAX_RESIDUAL = 1e-11;
/** Above it fewer than six digits are left of V Lambda V^{-1}. */
const MAX_KAPPA = 1e10;

/**
 * The eigenvectors of a real square matrix (Hessenberg form and double-shift QR of ml-matrix, checked).
 * @throws RangeError when the matrix is not square or not finite, or has no usable basis of eigenvectors (HiPPO-LegS itself has none)
 */
export function eigen(a: Matrix): Eigen {
  if (a.rows !== a.columns) throw new RangeError(`eigen: expected a square matrix, got ${a.rows} x ${a.columns}`);
  if (!a.to1DArray().every(Number.isFinite))
    throw new RangeError('eigen: expected finite entries, got NaN or Infinity');
  const found = eigenbasis(a);
  const kappa = conditionNumber(found.basis);
  if (!(kappa < MAX_KAPPA))
    throw new RangeError(
      `eigen: the eigenvectors must have a condition number below ${MAX_KAPPA}, got ${kappa.toExponential(1)}; perturb the matrix more`,
    );
  const error = residual(a, found);
  if (!(error <= MAX_RESIDUAL))
    throw new RangeError(`eigen: expected a residual of at most ${MAX_RESIDUAL}, got ${error.toExponential(1)}`);
  return { ...found, inverse: inverse(found.basis), kappa, residual: error };
}

/** Eigenvalues and eigenvectors alone, neither checked nor inverted. */
export function eigenbasis(a: Matrix): Eigenbasis {
  const evd = new EVD(a);
  const [re, im] = [evd.realEigenvalues, evd.imaginaryEigenvalues];
  const first = firstColumns(re, im);
  const lambda = { re: Float64Array.from(first, (j) => re[j]), im: Float64Array.from(first, (j) => im[j]) };
  const pairs = lambda.im.filter((x) => x > 0).length;
  return { lambda, pairs, reals: first.length - pairs, basis: unitBasis(evd.eigenvectorMatrix, first, pairs) };
}

/** max / min singular value. */
export function conditionNumber(a: Matrix): number {
  const values = singularValues(a);
  return Math.max(...values) / Math.min(...values);
}

/** ||A||_2. */
export const spectralNorm = (a: Matrix): number => Math.max(...singularValues(a));

const singularValues = (a: Matrix): readonly number[] =>
  new SVD(a, { computeLeftSingularVectors: false, computeRightSingularVectors: false }).diagonal;

/**
 * V^{-1} b, of each pair one row.
 * @param b [N, I]
 * @returns [pairs + reals, I]
 */
export function intoModes({ inverse, pairs, reals }: Eigen, b: Matrix): ComplexArray {
  const rows = inverse.mmul(b);
  const width = b.columns;
  const out = complexZeros((pairs + reals) * width);
  for (let m = 0; m < pairs + reals; m++)
    for (let i = 0; i < width; i++) {
      const at = m * width + i;
      out.re[at] = m < pairs ? rows.get(2 * m, i) * Math.SQRT1_2 : rows.get(m + pairs, i);
      out.im[at] = m < pairs ? -rows.get(2 * m + 1, i) * Math.SQRT1_2 : 0;
    }
  return out;
}

/**
 * c V, of each pair one column.
 * @param c [O, N]
 * @returns [O, pairs + reals]
 */
export function outOfModes({ basis, pairs, reals }: Eigen, c: Matrix): ComplexArray {
  const columns = c.mmul(basis);
  const width = pairs + reals;
  const out = complexZeros(c.rows * width);
  for (let o = 0; o < c.rows; o++)
    for (let m = 0; m < width; m++) {
      const at = o * width + m;
      out.re[at] = m < pairs ? columns.get(o, 2 * m) * Math.SQRT1_2 : columns.get(o, m + pairs);
      out.im[at] = m < pairs ? columns.get(o, 2 * m + 1) * Math.SQRT1_2 : 0;
    }
  return out;
}

/** The first column of each pair by imaginary part, then those of real eigenvalues by value. */
function firstColumns(re: readonly number[], im: readonly number[]): number[] {
  const all = re.map((_, j) => j);
  const pairs = all.filter((j) => im[j] > 0).sort((i, j) => im[i] - im[j] || re[i] - re[j]);
  return [...pairs, ...all.filter((j) => im[j] === 0).sort((i, j) => re[i] - re[j])];
}

/** Columns sorted and scaled. Of a pair, `vectors` holds Re v and Im v of the eigenvalue with positive imaginary part. */
function unitBasis(vectors: Matrix, first: readonly number[], pairs: number): Matrix {
  const order = first.flatMap((j, i) => (i < pairs ? [j, j + 1] : [j]));
  const basis = vectors.subMatrixColumn(order);
  for (let j = 0; j < order.length; ) {
    const width = j < 2 * pairs ? 2 : 1;
    let squares = 0;
    for (let w = 0; w < width; w++) for (const x of basis.getColumn(j + w)) squares += x * x;
    for (let w = 0; w < width; w++) basis.mulColumn(j + w, Math.sqrt(width / squares));
    j += width;
  }
  return basis;
}

/** V Lambda in the real basis: `basis` times blocks [[re, im], [-im, re]]. */
function timesLambda({ basis, lambda, pairs }: Eigenbasis): Matrix {
  const out = basis.clone();
  for (let row = 0; row < basis.rows; row++)
    for (let m = 0; m < lambda.re.length; m++) {
      const [re, im] = [lambda.re[m], lambda.im[m]];
      if (m >= pairs) {
        out.set(row, m + pairs, basis.get(row, m + pairs) * re);
        continue;
      }
      const [a, b] = [basis.get(row, 2 * m), basis.get(row, 2 * m + 1)];
      out.set(row, 2 * m, a * re - b * im);
      out.set(row, 2 * m + 1, a * im + b * re);
    }
  return out;
}

function residual(a: Matrix, found: Eigenbasis): number {
  const norm = a.norm();
  return norm === 0 ? 0 : a.mmul(found.basis).sub(timesLambda(found)).norm() / norm;
}

/** V Lambda V^{-1}, which is the matrix again up to kappa roundings. */
export const recompose = (found: Eigen): Matrix => timesLambda(found).mmul(found.inverse);
