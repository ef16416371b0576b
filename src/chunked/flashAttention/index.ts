/**
 * Softmax attention (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762) without the T x S matrix of scores (Dao 2023,
 * https://arxiv.org/abs/2307.08691), with key heads shared by groups of query heads (https://arxiv.org/abs/2305.13245).
 */
import type * as tf from '@tensorflow/tfjs';
import { checkCuSeqlens, checkDtype, checkGiven, checkPositiveInt, checkShapes } from '../check.js';
import { detached } from '../detached.js';
import { isFused, type PlainForm } from '../form.js';
import { fusedFlashAttention } from './fused.js';
import { plainFlashAttention } from './plain.js';

/** All float32. B batch, T queries, S keys, H query heads, G key heads (H a multiple of G), K key width, V value width. */
export interface FlashAttentionInputs {
  /** Queries [B, T, H, K]; head h reads key head floor(h / (H / G)). */
  q: tf.Tensor;
  /** Keys [B, S, G, K]. */
  k: tf.Tensor;
  /** Values [B, S, G, V]. */
  v: tf.Tensor;
  /** Added to the scaled scores: [B or 1, H or 1, T, S], of packed documents with the rows and columns of all. -Infinity hides a pair. */
  bias?: tf.Tensor;
  /** bool [B, S]: false for keys that no query sees, such as padding. A query that sees no key gives o = 0 and lse = -Infinity. */
  keyMask?: tf.Tensor;
}

/** Which keys a query sees. */
export interface AttentionMask {
  /** Default true: query t stands at position S - T + t and sees no key after itself, so it needs S >= T. */
  causal?: boolean;
  /** A token sees itself and the window - 1 tokens before it; needs `causal`. Default: all before it. */
  window?: number;
  /** Offsets [0, n1, n1 + n2, ..., T] of documents packed along time (B = 1 and S = T); each attends only within itself. */
  cuSeqlens?: Int32Array;
}

export interface FlashAttentionOptions extends AttentionMask {
  /** Factor on the scores; default K ** -0.5. */
  scale?: number;
  /** Default true; false takes `bias` for a constant, which saves the time and memory of its gradient [., ., T, S]. */
  biasGradient?: boolean;
  form?: PlainForm;
}

export type FlashAttentionOutput = {
  /** Outputs [B, T, H, V]. */
  o: tf.Tensor;
  /** Log-sum-exp of the scaled scores that a query sees [B, T, H]. */
  lse: tf.Tensor;
};

/**
 * o_t = sum_s exp(scale * q_t . k_s + bias_ts - lse_t) v_s over the keys s that query t sees. Differentiable in q, k, v and bias, through
 * both outputs. A bias of low rank needs no T x S matrix: see `flashBias`.
 * Queries may be the last T of S positions: keys and values of the past, kept and put before the new ones, give the same as one pass.
 * @throws TypeError when an input is missing or not float32
 * @throws RangeError when a shape or an option is wrong
 */
export function flashAttention(
  inputs: FlashAttentionInputs,
  options: FlashAttentionOptions = {},
): FlashAttentionOutput {
  checkInputs(inputs, options);
  const { causal = true, window, cuSeqlens, biasGradient = true, form = 'auto' } = options;
  const { scale = (inputs.q.shape[3] as number) ** -0.5 } = options;
  const run = isFused('flashAttention', form) ? fusedFlashAttention : plainFlashAttention;
  const constant = inputs.bias && !biasGradient ? detached(inputs.bias) : undefined;
  const result = run(constant ? { ...inputs, bias: constant } : inputs, {
    scale,
    causal,
    window,
    cuSeqlens,
    biasGradient,
  });
  constant?.dispose(); // a tape that needs it keeps a copy
  return result;
}

/** All options of an attention, as its forms take them. */
export interface AttentionSettings extends AttentionMask {
  scale: number;
  causal: boolean;
  biasGradient: boolean;
}

function checkInputs(
  { q, k, v, bias, keyMask }: FlashAttentionInputs,
  { causal = true, window, cuSeqlens, scale }: FlashAttentionOptions,
): void {
  checkGiven('flashAttention', { q, k, v });
  checkDtype('flashAttention', { q, k, v, bias });
  checkDtype('flashAttention', { keyMask }, 'bool');
  checkShapes('flashAttention', { q: [q, [null, null, null, null]] });
  const [B, T, H, K] = q.shape;
  checkShapes('flashAttention', { k: [k, [B, null, null, K]] });
  const [, S, G] = k.shape;
  checkShapes('flashAttention', { v: [v, [B, S, G, null]] });
  checkShapes('flashAttention', { keyMask: [keyMask, [B, S]], bias: [bias, [null, null, T, S]] });
  if (bias && ![1, B].includes(bias.shape[0]))
    throw new RangeError(`flashAttention: bias must be of 1 sequence or of all ${B}, got ${bias.shape[0]}`);
  if (bias && ![1, H].includes(bias.shape[1] as number))
    throw new RangeError(`flashAttention: bias must be of 1 head or of all ${H}, got ${bias.shape[1]}`);
  if (q.size === 0 || k.size === 0 || v.size === 0)
    throw new RangeError(
      `flashAttention: q, k and v must not be empty, got [${q.shape.join(',')}], [${k.shape.join(',')}] and [${v.shape.join(',')}]`,
    );
  if (H % G !== 0)
    throw new RangeError(`flashAttention: the heads of q must be a multiple of those of k, got ${H} and ${G}`);
  if (causal && S < T)
    throw new RangeError(
      `flashAttention: causal queries are the last of the keys' positions and need S >= T, got S = ${S} and T = ${T}; give every key, or causal: false`,
    );
  if (cuSeqlens && S !== T)
    throw new RangeError(`flashAttention: cuSeqlens needs as many keys as queries, got S = ${S} and T = ${T}`);
  checkCuSeqlens('flashAttention', cuSeqlens, B, T);
  if (window !== undefined) {
    checkPositiveInt('flashAttention', 'window', window);
    if (!causal) throw new RangeError(`flashAttention: window ${window} needs causal: true, got causal: false`);
  }
  if (scale !== undefined && !Number.isFinite(scale))
    throw new RangeError(`flashAttention: scale must be a finite number, got ${scale}`);
}
