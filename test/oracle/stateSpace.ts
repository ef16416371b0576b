/** Linear state spaces in float64 from their definitions, dense and slow; nothing of `src` is used. */

export type Complex = [number, number];
type Numbers = ArrayLike<number>;

const minus = (a: Complex, b: Complex): Complex => [a[0] - b[0], a[1] - b[1]];
const times = ([a, b]: Complex, [c, d]: Complex): Complex => [a * c - b * d, a * d + b * c];
const over = (x: Complex, [c, d]: Complex): Complex => {
  const [a, b] = times(x, [c, -d]);
  return [a / (c * c + d * d), b / (c * c + d * d)];
};

/** HiPPO-LegS: A_nn = -(n + 1), A_nk = -sqrt((2n + 1)(2k + 1)) for n > k. */
export const legs = (size: number): number[][] =>
  Array.from({ length: size }, (_, n) =>
    Array.from({ length: size }, (_, k) => {
      if (n === k) return -(n + 1);
      return n > k ? -Math.sqrt((2 * n + 1) * (2 * k + 1)) : 0;
    }),
  );

/** c (i omega - A)^{-1} b by Gaussian elimination with partial pivoting. */
export function transfer(a: readonly Numbers[], b: Numbers, c: Numbers, omega: number): Complex {
  const size = a.length;
  const rows = a.map((row, i): Complex[] => [
    ...Array.from(row, (x, j): Complex => [-x, i === j ? omega : 0]),
    [b[i], 0],
  ]);
  for (let k = 0; k < size; k++) {
    const below = rows.slice(k).map((row) => Math.hypot(...row[k]));
    const pivot = k + below.indexOf(Math.max(...below));
    [rows[k], rows[pivot]] = [rows[pivot], rows[k]];
    for (let i = k + 1; i < size; i++) {
      const factor = over(rows[i][k], rows[k][k]);
      for (let j = k; j <= size; j++) rows[i][j] = minus(rows[i][j], times(factor, rows[k][j]));
    }
  }
  const x: Complex[] = [];
  let sum: Complex = [0, 0];
  for (let i = size - 1; i >= 0; i--) {
    let top = rows[i][size];
    for (let j = i + 1; j < size; j++) top = minus(top, times(rows[i][j], x[j]));
    x[i] = over(top, rows[i][i]);
    sum = [sum[0] + c[i] * x[i][0], sum[1] + c[i] * x[i][1]];
  }
  return sum;
}

/** K_l = factor Re sum_n W_n exp(l zeta_n), W = c b psi, l = 0 .. length - 1; every array [n, 2] as [re, im]. */
export function impulseResponse(
  { zeta, psi, b, c }: Record<'zeta' | 'psi' | 'b' | 'c', readonly Complex[]>,
  length: number,
  factor: number,
): number[] {
  const weights = zeta.map((_, n) => times(times(c[n], b[n]), psi[n]));
  return Array.from({ length }, (_, l) =>
    zeta.reduce((sum, [x, y], n) => {
      const size = factor * Math.exp(l * x);
      return sum + size * (weights[n][0] * Math.cos(l * y) - weights[n][1] * Math.sin(l * y));
    }, 0),
  );
}
