/** Attention whose scores are multiplied by a bias of low rank (FlashBias, https://arxiv.org/abs/2505.12044, App. J). */
import * as tf from '@tensorflow/tfjs';
import { checkDtype, checkGiven, checkShapes } from '../check.js';
import {
  type FlashAttentionInputs,
  type FlashAttentionOptions,
  type FlashAttentionOutput,
  flashAttention,
} from '../flashAttention/index.js';
import { checkAttention, checkSharing } from '../flashAttention/inputs.js';

export interface MultiplicativeBiasInputs extends Omit<FlashAttentionInputs, 'bias'> {
  /** [B or 1, T, H or 1, R] */
  phiQ: tf.Tensor;
  /** [B or 1, S, H or 1, R]: for heads of q, also where those share heads of k. */
  phiK: tf.Tensor;
}

/**
 * o_t = sum_s softmax_s(scale * (q_t . k_s) (phiQ_t . phiK_s)) v_s, exactly, by attention of R times the width: q' = [q phiQ_1, ..., q phiQ_R],
 * k' likewise. For small R: the cost grows with it. Differentiable in all inputs.
 * @throws TypeError when an input is missing or not float32
 * @throws RangeError when a shape or an option is wrong
 */
export function multiplicativeBias(
  inputs: MultiplicativeBiasInputs,
  options: Omit<FlashAttentionOptions, 'biasGradient'> = {},
): FlashAttentionOutput {
  const { q, k, v, keyMask, phiQ, phiK } = inputs;
  checkAttention('multiplicativeBias', { q, k, v, keyMask }, options);
  checkGiven('multiplicativeBias', { phiQ, phiK });
  checkDtype('multiplicativeBias', { phiQ, phiK });
  const [B, T, H, K] = q.shape as [number, number, number, number];
  const [S, G] = [k.shape[1] as number, k.shape[2] as number];
  checkShapes('multiplicativeBias', { phiQ: [phiQ, [null, T, null, null]] });
  checkShapes('multiplicativeBias', { phiK: [phiK, [null, S, null, phiQ.shape[3] as number]] });
  for (const [name, x] of Object.entries({ phiQ, phiK }))
    checkSharing('multiplicativeBias', name, [x.shape[0], x.shape[2] as number], [B, H]);
  const { scale = K ** -0.5 } = options;
  return tf.tidy(() => {
    const own = phiK.shape[2] !== 1 && G !== H; // factors of each query head: so the heads of k part
    const apart = (x: tf.Tensor) => (own ? repeated(x, H / G) : x);
    const given = { q: widened(q, phiQ), k: widened(apart(k), phiK), v: apart(v), keyMask };
    return flashAttention(given, { ...options, scale }) as unknown as tf.TensorContainerObject;
  }) as unknown as FlashAttentionOutput;
}

/** [B, T, H, K] times [b, T, h, R] -> [B, T, H, R K]. */
function widened(x: tf.Tensor, phi: tf.Tensor): tf.Tensor {
  const R = phi.shape[3] as number;
  return tf.concat(
    tf.split(phi, R, 3).map((column) => tf.mul(x, column)),
    3,
  );
}

/** Each head `times` times in a row. */
function repeated(x: tf.Tensor, times: number): tf.Tensor {
  const [B, T, G, K] = x.shape as [number, number, number, number];
  return tf.mul(x.reshape([B, T, G, 1, K]), tf.ones([1, 1, 1, times, 1])).reshape([B, T, G * times, K]);
}
