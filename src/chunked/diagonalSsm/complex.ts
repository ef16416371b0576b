/** Complex numbers in plain ops: a pair of real tensors. */
import * as tf from '@tensorflow/tfjs';
import { angle, expMinus1 } from '../angles.js';

export interface Complex {
  re: tf.Tensor;
  im: tf.Tensor;
}

/** The parts of x [..., 2]. */
export function parts(x: tf.Tensor): Complex {
  const shape = x.shape.slice(0, -1);
  const [re, im] = tf.split(x, 2, -1).map((part) => part.reshape(shape));
  return { re, im };
}

/** The inverse of `parts`. */
export function joined({ re, im }: Complex): tf.Tensor {
  return tf.concat(
    [re, im].map((x) => tf.expandDims(x, -1)),
    -1,
  );
}

export const add = (x: Complex, y: Complex): Complex => ({ re: tf.add(x.re, y.re), im: tf.add(x.im, y.im) });

export const times = (x: Complex, y: Complex): Complex => ({
  re: tf.sub(tf.mul(x.re, y.re), tf.mul(x.im, y.im)),
  im: tf.add(tf.mul(x.re, y.im), tf.mul(x.im, y.re)),
});

/** Both parts by a function. */
export const map = (x: Complex, f: (part: tf.Tensor) => tf.Tensor): Complex => ({ re: f(x.re), im: f(x.im) });

/** exp(l zeta) for each l of `exponents` [L]: [L, H, M] of zeta [H, M]. */
export function powers({ re, im }: Complex, exponents: tf.Tensor): Complex {
  const l = exponents.reshape([-1, 1, 1]);
  const [size, theta] = [tf.exp(tf.mul(l, re)), angle(l, im)];
  return { re: tf.mul(size, tf.cos(theta)), im: tf.mul(size, tf.sin(theta)) };
}

/** What a state is multiplied by over some tokens: `base`, 1 or 0, plus `rest`. */
export interface Transition {
  base: tf.Tensor;
  rest: Complex;
}

/**
 * exp(l zeta) [1, H, M] of zeta [H, M] to multiply states by many times. Where it is near 1 `rest` is exp(l zeta) - 1: float32 rounds 1 - 1e-5 so that the
 * decay is off by up to 3e-3.
 */
export function transition(zeta: Complex, l: number): Transition {
  const { re, im } = powers(zeta, tf.tensor1d([l]));
  const near = expMinus1(tf.mul(zeta.re, l), angle(tf.tensor1d([l]), zeta.im)).re.reshape(re.shape);
  const slow = tf.greaterEqual(near, -0.5);
  return { base: tf.cast(slow, 'float32'), rest: { re: tf.where(slow, near, re), im } };
}

/** exp(l zeta) x for x [..., H, M]. */
export function moved({ base, rest }: Transition, x: Complex): Complex {
  return add(
    map(x, (part) => tf.mul(base, part)),
    times(rest, x),
  );
}

/** 0 .. count - 1 as floats, times `step`, from `start`. */
export const counted = (count: number, start = 0, step = 1): tf.Tensor =>
  tf.tensor(Float32Array.from({ length: count }, (_, i) => start + step * i));
