/** Complex numbers in float64 as [re, im]. */
export type Complex = [number, number];

export const plus = (a: Complex, b: Complex): Complex => [a[0] + b[0], a[1] + b[1]];
export const minus = (a: Complex, b: Complex): Complex => [a[0] - b[0], a[1] - b[1]];
export const times = ([a, b]: Complex, [c, d]: Complex): Complex => [a * c - b * d, a * d + b * c];
export const scaled = (factor: number, [a, b]: Complex): Complex => [factor * a, factor * b];
export const conj = ([a, b]: Complex): Complex => [a, -b];
export const over = (x: Complex, d: Complex): Complex => scaled(1 / (d[0] ** 2 + d[1] ** 2), times(x, conj(d)));

/** exp(x + iy). */
export const exp = ([x, y]: Complex): Complex => [Math.exp(x) * Math.cos(y), Math.exp(x) * Math.sin(y)];

/** The complex numbers of a flat list [re, im, re, im, ...]. */
export const complexes = (flat: ArrayLike<number>): Complex[] =>
  Array.from({ length: flat.length / 2 }, (_, i) => [flat[2 * i], flat[2 * i + 1]]);
