/** AdamW in TensorFlow.js ops, on any backend; data is read asynchronously only, so it runs on webgpu too. */
import * as tf from '@tensorflow/tfjs';
import type { Coefficients, Parameter } from './parameter.js';

/**
 * The norm of every gradient. Rows along the last axis are summed by the backend in float32, the rows in float64.
 */
export async function plainNorms(gradients: tf.Tensor[]): Promise<number[]> {
  if (gradients.length === 0) return [];
  const rows = gradients.map((g) => tf.util.sizeFromShape(g.shape.slice(0, -1)));
  const squares = tf.tidy(() =>
    tf.concat(gradients.map((g, i) => tf.reshape(tf.sum(tf.square(g), g.rank === 0 ? [] : [-1]), [rows[i]]))),
  );
  const sums = await squares.data();
  squares.dispose();
  let at = 0;
  return rows.map((n) => {
    let sum = 0;
    for (const end = at + n; at < end; at++) sum += sums[at];
    return Math.sqrt(sum);
  });
}

/** Assigns every weight and replaces its moments. */
export function plainUpdate(parameters: Parameter[], coefficients: Coefficients): void {
  for (const parameter of parameters) tf.tidy(() => update(parameter, coefficients));
}

function update(parameter: Parameter, { gradScale, beta1, beta2, mScale, vScale, eps }: Coefficients): void {
  const { weight, gradient, moments, learningRate, decay } = parameter;
  const g = tf.mul(gradient, gradScale);
  const m = blend(moments.m, g, beta1);
  const v = blend(moments.v, tf.square(g), beta2);
  const change = tf.mul(tf.div(m, tf.add(tf.mul(tf.sqrt(v), vScale), eps)), learningRate * mScale);
  weight.assign(tf.sub(weight, decay === 0 ? change : tf.add(change, tf.mul(weight, learningRate * decay))));
  tf.dispose([moments.m, moments.v]);
  [moments.m, moments.v] = [tf.keep(m), tf.keep(v)];
}

/**
 * beta * from + (1 - beta) * to, as a step from the one that counts more: no bias of two coefficients that do not add up to 1 in
 * float32, and no digits lost where the other one is much larger.
 */
function blend(from: tf.Tensor, to: tf.Tensor, beta: number): tf.Tensor {
  return beta < 0.5 ? tf.add(to, tf.mul(tf.sub(from, to), beta)) : tf.add(from, tf.mul(tf.sub(to, from), 1 - beta));
}
