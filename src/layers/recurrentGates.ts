/** The gates that recurrences with a step size share: how they start (Mamba, https://arxiv.org/abs/2312.00752), how strongly a token writes. */
import * as tf from '@tensorflow/tfjs';
import type { Rng } from '../rng.js';
import type { WeightSpec } from './seqLayer.js';

/** Bounds of a decay's step size at the start. */
const STEP = { min: 1e-3, max: 0.1, floor: 1e-4 };

/** The log of a rate per head, from U(least, 16); without `least` the log of 1. */
export function logRate(heads: number, least?: number): WeightSpec {
  const draw = (rng: Rng) => Math.log(16 - rng.uniform() * (16 - (least as number))); // in (least, 16], so there is a logarithm
  const init = (rng: Rng) => Float32Array.from({ length: heads }, () => (least === undefined ? 0 : draw(rng)));
  return { shape: [heads], kind: 'other', init };
}

/** The inverse softplus of a step size that is log-uniform between 1e-3 and 0.1. */
export function stepBias(size: number): WeightSpec {
  const [low, high] = [Math.log(STEP.min), Math.log(STEP.max)];
  const inverse = (u: number) => {
    const dt = Math.max(Math.exp(low + u * (high - low)), STEP.floor);
    return dt + Math.log(-Math.expm1(-dt));
  };
  return { shape: [size], kind: 'other', init: (rng) => rng.uniformArray(size).map(inverse) };
}

/** beta = sigmoid(x), or 2 sigmoid(x) where a transition may have a negative eigenvalue. */
export function writeStrength(x: tf.Tensor, allowNegEigval: boolean): tf.Tensor {
  const beta = tf.sigmoid(x);
  return allowNegEigval ? tf.mul(2, beta) : beta;
}
