/** Discretisation in TensorFlow.js ops, real and imaginary parts apart: runs and trains on every backend. */
import * as tf from '@tensorflow/tfjs';
import { angle, expMinus1 } from '../angles.js';
import type { DiscretisationRule, DiscretiseInputs, DiscretiseOutput, DiscretiseSizes } from './index.js';

interface Complex {
  re: tf.Tensor;
  im: tf.Tensor;
}

export function plainDiscretise(
  { dt, a }: DiscretiseInputs,
  { rows, copies, M, each }: DiscretiseSizes,
  rule: DiscretisationRule,
): DiscretiseOutput {
  const step = tf.reshape(dt, [rows / copies, copies, each ? M : 1]);
  const part = (i: number) => tf.reshape(tf.slice(tf.reshape(a, [copies * M, 2]), [0, i], [-1, 1]), [1, copies, M]);
  const z = { re: tf.mul(step, part(0)), im: tf.mul(step, part(1)) };
  const { zeta, psi } = rule === 'zoh' ? zeroOrderHold(z, step, angle(step, part(1))) : bilinear(z, step);
  return { zeta: joined(zeta), psi: joined(psi) };
}

const joined = ({ re, im }: Complex) => tf.stack([re, im], -1);

/** Below this |z| the series of (e^z - 1) / z is used, above it the quotient, whose gradient loses 1 / |z|^2 there. */
const SERIES_BELOW = 1;
const SERIES_DEGREE = 12;

/** `turned`: Im z less whole turns. */
function zeroOrderHold(z: Complex, step: tf.Tensor, turned: tf.Tensor): { zeta: Complex; psi: Complex } {
  const large = tf.greaterEqual(tf.add(tf.square(z.re), tf.square(z.im)), SERIES_BELOW ** 2); // tf.less has no gradient, not even of zero
  const [zeros, ones] = [tf.zerosLike(z.re), tf.onesLike(z.re)];
  // Each branch is given numbers it can take, so that the gradient of the other one is not NaN.
  const near = expRatioSeries({ re: tf.where(large, zeros, z.re), im: tf.where(large, zeros, z.im) });
  const far = expRatio(
    { re: tf.where(large, z.re, ones), im: tf.where(large, z.im, zeros) },
    tf.where(large, turned, zeros),
  );
  const part = (name: 're' | 'im') => tf.mul(step, tf.where(large, far[name], near[name]));
  return { zeta: { re: z.re, im: turned }, psi: { re: part('re'), im: part('im') } };
}

/** 1 + z/2 (1 + z/3 (1 + ...)). */
function expRatioSeries(z: Complex): Complex {
  let sum: Complex = { re: tf.onesLike(z.re), im: tf.zerosLike(z.re) };
  for (let k = SERIES_DEGREE + 1; k > 1; k--) {
    const { re, im } = times(z, sum);
    sum = { re: tf.add(tf.div(re, k), 1), im: tf.div(im, k) };
  }
  return sum;
}

/** (e^z - 1) / z; `turned` is Im z less whole turns. */
function expRatio(z: Complex, turned: tf.Tensor): Complex {
  const { re, im } = times(expMinus1(z.re, turned), { re: z.re, im: tf.neg(z.im) });
  const below = tf.add(tf.square(z.re), tf.square(z.im));
  return { re: tf.div(re, below), im: tf.div(im, below) };
}

/** With w = z / 2: zeta = log((1 + w) / (1 - w)), psi = dt / (1 - w). */
function bilinear(z: Complex, step: tf.Tensor): { zeta: Complex; psi: Complex } {
  const w = { re: tf.div(z.re, 2), im: tf.div(z.im, 2) };
  const rest = tf.sub(1, w.re);
  const below = tf.add(tf.square(rest), tf.square(w.im));
  const re = tf.div(log1p(tf.div(tf.mul(4, w.re), below)), 2);
  const im = tf.atan2(tf.mul(2, w.im), tf.sub(tf.mul(rest, tf.add(1, w.re)), tf.square(w.im)));
  const scale = tf.div(step, below);
  return { zeta: { re, im }, psi: { re: tf.mul(scale, rest), im: tf.mul(scale, w.im) } };
}

function times(a: Complex, b: Complex): Complex {
  return {
    re: tf.sub(tf.mul(a.re, b.re), tf.mul(a.im, b.im)),
    im: tf.add(tf.mul(a.re, b.im), tf.mul(a.im, b.re)),
  };
}

/** log(1 + x) where 1 + x rounds x away (tf.log1p does not hold there on every backend): log(u) x / (u - 1) with u = 1 + x. */
const log1p = tf.customGrad((x, save) => {
  (save as tf.GradSaveFunc)([x as tf.Tensor]);
  const u = tf.add(x as tf.Tensor, 1);
  const over = tf.sub(u, 1);
  const none = tf.equal(over, 0);
  const value = tf.where(
    none,
    x as tf.Tensor,
    tf.div(tf.mul(tf.log(u), x as tf.Tensor), tf.where(none, tf.onesLike(u), over)),
  );
  return { value, gradFunc: (dy: tf.Tensor, [saved]: tf.Tensor[]) => tf.div(dy, tf.add(saved, 1)) };
}) as (x: tf.Tensor) => tf.Tensor;
