/**
 * From a continuous mode x' = lambda x + b u to x_t = exp(zeta) x_{t-1} + psi b u_t, in real arithmetic without cancellation
 * (S4D, Gu et al. 2022, https://arxiv.org/abs/2206.11893, sections 2 and 4).
 */
import { type ComplexArray, complexZeros } from './complexArray.js';

/** `zoh`: the input is held between steps. `bilinear`: the trapezoidal rule. */
export type DiscretisationRule = 'zoh' | 'bilinear';

/** What a rule makes of each mode: transition exp(zeta), input factor psi. */
export interface DiscreteModes {
  zeta: ComplexArray;
  psi: ComplexArray;
}

/**
 * Discretises modes of any number, each with its own step.
 * @param lambda eigenvalues [M]
 * @param dt steps [M], or one for all
 * @throws RangeError where the numbers of modes and steps differ
 */
export function discretise(
  lambda: ComplexArray,
  dt: number | ArrayLike<number>,
  rule: DiscretisationRule = 'zoh',
): DiscreteModes {
  const size = lambda.re.length;
  if (typeof dt !== 'number' && dt.length !== size)
    throw new RangeError(`discretise: dt must be one number or one for each of ${size} modes, got ${dt.length}`);
  const one = rule === 'zoh' ? zeroOrderHold : bilinear;
  const out: DiscreteModes = { zeta: complexZeros(size), psi: complexZeros(size) };
  for (let i = 0; i < size; i++) one(out, i, lambda.re[i], lambda.im[i], typeof dt === 'number' ? dt : dt[i]);
  return out;
}

/** zeta = z = dt lambda; psi = (e^z - 1) / lambda, which is dt for lambda = 0. */
function zeroOrderHold({ zeta, psi }: DiscreteModes, i: number, re: number, im: number, dt: number): void {
  const [x, y] = [dt * re, dt * im];
  const scale = Math.hypot(re, im);
  zeta.re[i] = x;
  zeta.im[i] = y;
  if (scale === 0) {
    psi.re[i] = dt;
    return;
  }
  const growRe = Math.expm1(x) * Math.cos(y) - 2 * Math.sin(y / 2) ** 2; // e^z - 1
  const growIm = Math.exp(x) * Math.sin(y);
  const [unitRe, unitIm] = [re / scale, im / scale]; // |lambda|^2 alone may underflow
  psi.re[i] = (growRe * unitRe + growIm * unitIm) / scale;
  psi.im[i] = (growIm * unitRe - growRe * unitIm) / scale;
}

/** exp(zeta) = (1 + z/2) / (1 - z/2); psi = dt / (1 - z/2). */
function bilinear({ zeta, psi }: DiscreteModes, i: number, re: number, im: number, dt: number): void {
  const [x, y] = [dt * re, dt * im];
  const below = (1 - x / 2) ** 2 + (y / 2) ** 2;
  zeta.re[i] = 0.5 * Math.log1p((2 * x) / below);
  zeta.im[i] = Math.atan2(y / 2, 1 + x / 2) + Math.atan2(y / 2, 1 - x / 2);
  psi.re[i] = (dt * (1 - x / 2)) / below;
  psi.im[i] = (dt * (y / 2)) / below;
}
