/** Discretisation of single modes in float64 with its gradients; nothing of `src` is used. */
import { type Complex, conj, minus, over, plus, scaled, times } from './complex.js';

/** What a rule makes of a mode, and the derivatives (by complex differentiation in a, and in dt) of zeta and psi. */
interface Mode {
  zeta: Complex;
  psi: Complex;
  zetaByA: Complex;
  psiByA: Complex;
  zetaByDt: Complex;
  psiByDt: Complex;
}

/** The sum of c(k) z^k; 60 terms reach float64 accuracy for |z| <= 4. */
function series(z: Complex, c: (k: number) => number): Complex {
  let [sum, power]: [Complex, Complex] = [
    [0, 0],
    [1, 0],
  ];
  for (let k = 0; k < 60; k++) {
    sum = plus(sum, scaled(c(k), power));
    power = times(power, z);
  }
  return sum;
}

const factorial = (k: number): number => (k < 2 ? 1 : k * factorial(k - 1));

function zeroOrderHold(a: Complex, dt: number): Mode {
  const z = scaled(dt, a);
  const small = Math.hypot(...z) < 1;
  const e: Complex = [Math.exp(z[0]) * Math.cos(z[1]), Math.exp(z[0]) * Math.sin(z[1])];
  const phi = small ? series(z, (k) => 1 / factorial(k + 1)) : over(minus(e, [1, 0]), z);
  const slope = small ? series(z, (k) => 1 / ((k + 2) * factorial(k))) : over(minus(e, phi), z);
  return {
    ...{ zeta: z, psi: scaled(dt, phi), zetaByA: [dt, 0], psiByA: scaled(dt * dt, slope) },
    ...{ zetaByDt: a, psiByDt: e },
  };
}

function bilinear(a: Complex, dt: number): Mode {
  const z = scaled(dt, a);
  const [above, below]: [Complex, Complex] = [
    [1 + z[0] / 2, z[1] / 2],
    [1 - z[0] / 2, -z[1] / 2],
  ];
  const zeta: Complex = [
    0.5 * Math.log1p((2 * z[0]) / (below[0] ** 2 + below[1] ** 2)),
    Math.atan2(above[1], above[0]) - Math.atan2(below[1], below[0]),
  ];
  const psi = over([dt, 0], below);
  const zetaByZ = over([1, 0], times(above, below));
  return {
    ...{ zeta, psi, zetaByA: scaled(dt, zetaByZ), psiByA: scaled(0.5, times(psi, psi)) },
    ...{ zetaByDt: times(a, zetaByZ), psiByDt: over([1, 0], times(below, below)) },
  };
}

/**
 * Modes one by one, each with its step, and the gradients of sum Re(conj(gZeta) zeta) + Re(conj(gPsi) psi), mode by mode. `termsA` and `termsDt`
 * are the sums of the absolute values behind gA and gDt, to which their rounding errors are relative.
 */
export function discretiseOracle(
  rule: 'zoh' | 'bilinear',
  modes: readonly { a: Complex; dt: number; gZeta: Complex; gPsi: Complex }[],
): { zeta: Complex; psi: Complex; gA: Complex; gDt: number; termsA: number; termsDt: number }[] {
  return modes.map(({ a, dt, gZeta, gPsi }) => {
    const m = rule === 'zoh' ? zeroOrderHold(a, dt) : bilinear(a, dt);
    const gA = plus(times(conj(m.zetaByA), gZeta), times(conj(m.psiByA), gPsi));
    const gDt = times(conj(m.zetaByDt), gZeta)[0] + times(conj(m.psiByDt), gPsi)[0];
    const [sizeZeta, sizePsi] = [Math.hypot(...gZeta), Math.hypot(...gPsi)];
    const termsA = Math.hypot(...m.zetaByA) * sizeZeta + Math.hypot(...m.psiByA) * sizePsi;
    const termsDt = Math.hypot(...m.zetaByDt) * sizeZeta + Math.hypot(...m.psiByDt) * sizePsi;
    return { zeta: m.zeta, psi: m.psi, gA, gDt, termsA, termsDt };
  });
}
