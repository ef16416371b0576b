/** What one step does to one weight, and what all weights of a step share. */
import type * as tf from '@tensorflow/tfjs';

/** Running means of the gradient and of its square; owned by the optimizer, same shape as the weight. */
export interface Moments {
  m: tf.Tensor;
  v: tf.Tensor;
}

/** What a weight's group may change. */
export interface Rates {
  learningRate: number;
  decay: number;
}

export interface Parameter extends Rates {
  weight: tf.Variable;
  gradient: tf.Tensor;
  moments: Moments;
}

/** g = gradScale * gradient; m and v move towards g and g^2; w -= lr * (mScale * m / (vScale * sqrt(v) + eps) + decay * w). */
export interface Coefficients {
  /** Below 1 when the global norm is clipped. */
  gradScale: number;
  beta1: number;
  beta2: number;
  eps: number;
  /** 1 / (1 - beta1^t): undoes the start of m at zero. */
  mScale: number;
  /** (1 - beta2^t)^-1/2: the same for the root of v. */
  vScale: number;
}
