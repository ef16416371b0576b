/** The taps of diagonal modes in float64 from the definition; nothing of `src` is used. */
import { type Complex, conj, exp, plus, scaled, times } from './complex.js';

/**
 * One channel: K_l = factor Re sum_n w_n exp(l zeta_n), and the gradients of sum_l gK_l K_l. `terms`, `termsW` and `termsZeta` are the sums of the absolute
 * values behind an entry of K, gW, gZeta: the largest over the entries.
 */
export function vandermondeOracle(
  zeta: readonly Complex[],
  w: readonly Complex[],
  gK: ArrayLike<number>,
  factor: number,
) {
  const K = new Float64Array(gK.length);
  const [gW, gZeta]: Complex[][] = [zeta.map(() => [0, 0]), zeta.map(() => [0, 0])];
  const [absolute, absoluteW, absoluteZeta] = [new Float64Array(gK.length), zeta.map(() => 0), zeta.map(() => 0)];
  for (let l = 0; l < gK.length; l++)
    zeta.forEach((z, n) => {
      const e = exp(scaled(l, z));
      const size = factor * Math.hypot(...e);
      K[l] += factor * times(w[n], e)[0];
      absolute[l] += size * Math.hypot(...w[n]);
      gW[n] = plus(gW[n], scaled(factor * gK[l], conj(e)));
      absoluteW[n] += size * Math.abs(gK[l]);
      gZeta[n] = plus(gZeta[n], scaled(factor * gK[l] * l, conj(times(w[n], e))));
      absoluteZeta[n] += size * Math.abs(gK[l]) * l * Math.hypot(...w[n]);
    });
  return {
    K,
    gW,
    gZeta,
    terms: Math.max(...absolute),
    termsW: Math.max(...absoluteW),
    termsZeta: Math.max(...absoluteZeta),
  };
}
