/** The convolution kernel of diagonal modes: K_l = 2 Re sum_n w_n exp(l zeta_n) (README.md here). */
import * as tf from '@tensorflow/tfjs';
import { checkDtype, checkGiven, checkPositiveInt, checkShapes } from '../check.js';
import { isFused, type PlainForm } from '../form.js';
import { fusedVandermonde } from './fused.js';
import { plainVandermonde } from './plain.js';

export interface VandermondeInputs {
  /** [H, M, 2]: log of the transition of each mode, as [re, im]. */
  zeta: tf.Tensor;
  /** [H, M, 2]: weight of each mode, as [re, im]: C times B times psi of a state space. */
  w: tf.Tensor;
}

export interface VandermondeOptions {
  /** Number of taps, L. */
  length: number;
  /** Each mode stands for itself and its conjugate (default): the factor 2. False: the modes as they are, of which the real part is taken. */
  conjugate?: boolean;
  form?: PlainForm;
}

/**
 * The taps of diagonal state spaces, one row for each channel (S4D, Gu et al. 2022, https://arxiv.org/abs/2206.11893, section 3.3), without ever holding H M L
 * numbers.
 * @returns [H, L]
 * @throws RangeError or TypeError for wrong shapes, dtypes or options
 */
export function vandermonde({ zeta, w }: VandermondeInputs, options: VandermondeOptions): tf.Tensor {
  const { length, conjugate = true, form = 'auto' } = options;
  checkGiven('vandermonde', { zeta, w });
  checkDtype('vandermonde', { zeta, w });
  checkShapes('vandermonde', { zeta: [zeta, [null, null, 2]], w: [w, zeta.shape] });
  checkPositiveInt('vandermonde', 'length', length);
  const factor = conjugate ? 2 : 1;
  if (isFused('vandermonde', form)) return fusedVandermonde({ zeta, w }, { length, factor });
  return tf.tidy(() => plainVandermonde({ zeta, w }, length, factor));
}
