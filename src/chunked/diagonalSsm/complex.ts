/** Complex numbers in plain ops: a pair of real tensors. */
import * as tf from '@tensorflow/tfjs';

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

/**
 * exp(l zeta) for each l of `exponents` [L]: [L, H, M] of zeta [H, M]. Turns are taken off the angle before it is multiplied, in two parts so that
 * float32 loses nothing.
 */
export function powers({ re, im }: Complex, exponents: tf.Tensor): Complex {
  const turns = tf.round(tf.mul(im, 1 / (2 * Math.PI)));
  const angle = tf.sub(tf.sub(im, tf.mul(turns, 6.28125)), tf.mul(turns, 2 * Math.PI - 6.28125));
  const l = exponents.reshape([-1, 1, 1]);
  const [size, theta] = [tf.exp(tf.mul(l, re)), tf.mul(l, angle)];
  return { re: tf.mul(size, tf.cos(theta)), im: tf.mul(size, tf.sin(theta)) };
}

/** 0 .. count - 1 as floats, times `step`, from `start`. */
export const counted = (count: number, start = 0, step = 1): tf.Tensor =>
  tf.tensor(Float32Array.from({ length: count }, (_, i) => start + step * i));
