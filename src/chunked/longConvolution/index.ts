/** Convolution with a kernel as long as the sequence, one for each channel, in T log T (README.md here). */
import * as tf from '@tensorflow/tfjs';
import { checkDtype, checkGiven, checkShapes } from '../check.js';
import { isFused, type PlainForm } from '../form.js';
import { fusedLongConvolution } from './fused.js';
import { plainLongConvolution } from './plain.js';

export interface LongConvolutionInputs {
  /** [B, T, H] */
  u: tf.Tensor;
  /** [H, T]: tap l of channel h weighs the token l steps back. */
  kernel: tf.Tensor;
  /** [H, T]: tap l weighs the token l + 1 steps ahead (the last tap meets none). Absent: causal. */
  kernelReverse?: tf.Tensor;
}

export interface LongConvolutionOptions {
  form?: PlainForm;
}

/**
 * y_t = sum_{s <= t} kernel[t - s] u_s + sum_{s > t} kernelReverse[s - t - 1] u_s, channel by channel (S4D, Gu et al. 2022, https://arxiv.org/abs/2206.11893).
 *
 * On wasm by FFT: rounding errors, of about 1e-7 of the largest terms, and NaN or Infinity reach all tokens of a sequence, earlier ones too, and those of the channel
 * four further on that shares its transform.
 * @returns [B, T, H]
 * @throws RangeError or TypeError for wrong shapes, dtypes or options
 */
export function longConvolution(
  inputs: LongConvolutionInputs,
  { form = 'auto' }: LongConvolutionOptions = {},
): tf.Tensor {
  const { u, kernel, kernelReverse } = inputs;
  checkGiven('longConvolution', { u, kernel });
  checkDtype('longConvolution', { u, kernel, kernelReverse });
  checkShapes('longConvolution', { u: [u, [null, null, null]] });
  const [, T, H] = u.shape;
  checkShapes('longConvolution', { kernel: [kernel, [H, T]], kernelReverse: [kernelReverse, [H, T]] });
  if (T === 0) throw new RangeError('longConvolution: needs a token, got T = 0');
  if (isFused('longConvolution', form)) return fusedLongConvolution(inputs);
  return tf.tidy(() => plainLongConvolution(inputs));
}
