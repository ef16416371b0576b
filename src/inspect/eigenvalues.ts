/**
 * The extreme eigenvalues of a symmetric matrix in float64: Householder reflections to three diagonals, then bisection on the number of
 * eigenvalues below a value (Golub and Van Loan, Matrix Computations, Sec. 8.3 and 8.4). Errors are a few roundings of the largest one.
 */

/** A square of what is zero to any rounding of use, and still has an inverse. */
const TINY = 1e-290;

/** @param matrix [n, n], row-major; only the lower triangle is read */
export function extremeEigenvalues(matrix: ArrayLike<number>, n: number): { min: number; max: number } {
  const { diagonal, beside } = tridiagonal(matrix, n);
  // Gershgorin: each eigenvalue is within the off-diagonal sum of some diagonal entry
  const reach = (i: number) => Math.abs(beside[i - 1] ?? 0) + Math.abs(beside[i] ?? 0);
  const low = diagonal.reduce((least, d, i) => Math.min(least, d - reach(i)), Number.POSITIVE_INFINITY);
  const high = diagonal.reduce((most, d, i) => Math.max(most, d + reach(i)), Number.NEGATIVE_INFINITY);
  const find = (count: number) => bisect((x) => countBelow(diagonal, beside, x) >= count, low, high);
  return { min: find(1), max: find(n) };
}

/** The diagonal [n] and the one beside it [n - 1] of a matrix with the same eigenvalues. */
function tridiagonal(matrix: ArrayLike<number>, n: number): { diagonal: Float64Array; beside: Float64Array } {
  const a = Float64Array.from({ length: n * n }, (_, i) => {
    const [row, column] = [Math.floor(i / n), i % n];
    return matrix[Math.max(row, column) * n + Math.min(row, column)];
  });
  const beside = new Float64Array(Math.max(n - 1, 0));
  for (let j = 0; j < n - 1; j++) beside[j] = reflect(a, n, j);
  return { diagonal: Float64Array.from({ length: n }, (_, i) => a[i * n + i]), beside };
}

/** Clears column j below the entry under the diagonal, which is returned, by a reflection from both sides of the rest of `a`. */
function reflect(a: Float64Array, n: number, j: number): number {
  const v = Float64Array.from({ length: n - j - 1 }, (_, i) => a[(j + 1 + i) * n + j]);
  const norm = Math.hypot(...v);
  const corner = v[0] > 0 ? -norm : norm;
  v[0] -= corner;
  const square = v.reduce((sum, x) => sum + x * x, 0);
  if (square < TINY) return corner; // cleared already, or to far below a rounding
  const at = (row: number, column: number) => (j + 1 + row) * n + j + 1 + column;
  const p = v.map((_, row) => (2 / square) * v.reduce((sum, x, column) => sum + a[at(row, column)] * x, 0));
  const share = p.reduce((sum, x, i) => sum + x * v[i], 0) / square;
  for (let row = 0; row < v.length; row++) p[row] -= share * v[row];
  for (let row = 0; row < v.length; row++)
    for (let column = 0; column < v.length; column++) a[at(row, column)] -= v[row] * p[column] + p[row] * v[column];
  return corner;
}

/** Eigenvalues below x: negative pivots of the factorisation of the matrix minus x (Sylvester's law of inertia). */
function countBelow(diagonal: Float64Array, beside: Float64Array, x: number): number {
  let [count, pivot] = [0, 1];
  for (let i = 0; i < diagonal.length; i++) {
    pivot = diagonal[i] - x - (i > 0 ? beside[i - 1] ** 2 / pivot : 0);
    if (pivot === 0) pivot = TINY;
    if (pivot < 0) count++;
  }
  return count;
}

/** Where `isAbove` turns from false to true between two values. */
function bisect(isAbove: (x: number) => boolean, low: number, high: number): number {
  for (let n = 0; n < 100; n++) {
    const middle = (low + high) / 2;
    if (middle === low || middle === high) break;
    if (isAbove(middle)) high = middle;
    else low = middle;
  }
  return (low + high) / 2;
}
