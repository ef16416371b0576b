/** Complex exponentials in plain ops without what float32 would cost: products as angles less whole turns, e^z - 1 without cancellation. */
import * as tf from '@tensorflow/tfjs';

/** 2 pi in three parts; the first two have 8 and 12 bits, so that products with up to 2^12 turns are exact. */
const TURN = [6.28125, 0.0019354820251464844, -1.748455600074497e-7] as const;

/**
 * x y less whole turns, between -pi and pi up to rounding, with the gradient of x y; the shapes broadcast. Off by 4e-7 at most while |x y| < 2.5e4, where x y itself
 * would be off by 6e-8 |x y|. No number where x or y is above 8e34.
 */
export function angle(x: tf.Tensor, y: tf.Tensor): tf.Tensor {
  const reduced = tf.customGrad((product) => ({
    value: tf.tidy(() => withoutTurns(product as tf.Tensor, x, y)),
    gradFunc: (dy: tf.Tensor) => tf.clone(dy),
  }));
  return reduced(tf.mul(x, y));
}

/** `product` is x y rounded; what rounding took is exact by the halves of x and y (Dekker 1971, https://doi.org/10.1007/BF01397083). */
function withoutTurns(product: tf.Tensor, x: tf.Tensor, y: tf.Tensor): tf.Tensor {
  const [[xh, xl], [yh, yl]] = [halves(x), halves(y)];
  const cross = tf.add(tf.add(tf.sub(tf.mul(xh, yh), product), tf.mul(xh, yl)), tf.mul(xl, yh));
  const lost = tf.add(cross, tf.mul(xl, yl));
  const turns = tf.round(tf.mul(product, 1 / (2 * Math.PI)));
  const near = tf.sub(tf.sub(product, tf.mul(turns, TURN[0])), tf.mul(turns, TURN[1]));
  return tf.add(near, tf.sub(lost, tf.mul(turns, TURN[2])));
}

/** x as the sum of two numbers of 12 bits. */
function halves(x: tf.Tensor): [high: tf.Tensor, low: tf.Tensor] {
  const wide = tf.mul(x, 4097);
  const high = tf.sub(wide, tf.sub(wide, x));
  return [high, tf.sub(x, high)];
}

/** e^z - 1 for z = x + i theta, |theta| <= pi. */
export function expMinus1(x: tf.Tensor, theta: tf.Tensor): { re: tf.Tensor; im: tf.Tensor } {
  const less = tf.mul(2, tf.square(tf.sin(tf.div(theta, 2)))); // 1 - cos theta
  return { re: tf.sub(tf.mul(expm1(x), tf.cos(theta)), less), im: tf.mul(tf.exp(x), tf.sin(theta)) };
}

/** e^x - 1 without cancellation (not every backend has it): (u - 1) x / log u with u = e^x. */
function expm1(x: tf.Tensor): tf.Tensor {
  const exact = tf.customGrad((given, save) => {
    const u = tf.exp(given as tf.Tensor);
    (save as tf.GradSaveFunc)([given as tf.Tensor]);
    const over = tf.log(u);
    const none = tf.equal(over, 0);
    const ratio = tf.div(tf.mul(tf.sub(u, 1), given as tf.Tensor), tf.where(none, tf.onesLike(u), over));
    const value = tf.where(none, given as tf.Tensor, tf.where(tf.equal(u, 0), tf.neg(tf.onesLike(u)), ratio));
    return { value, gradFunc: (dy: tf.Tensor, [saved]: tf.Tensor[]) => tf.mul(dy, tf.exp(saved)) };
  });
  return exact(x);
}
