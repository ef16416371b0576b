/**
 * Softmax attention (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762) without the T x S matrix of scores (Dao 2023,
 * https://arxiv.org/abs/2307.08691), with key heads shared by groups of query heads (https://arxiv.org/abs/2305.13245).
 */
import type * as tf from '@tensorflow/tfjs';
import { detached } from '../detached.js';
import { isFused, type PlainForm } from '../form.js';
import { fusedFlashAttention } from './fused.js';
import { checkAttention } from './inputs.js';
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
  checkAttention('flashAttention', inputs, options);
  const { causal = true, window, cuSeqlens, biasGradient = true, form = 'auto' } = options;
  const { scale = (inputs.q.shape[3] as number) ** -0.5 } = options;
  const { q, k, v, bias, keyMask } = inputs;
  const run = isFused('flashAttention', form) ? fusedFlashAttention : plainFlashAttention;
  const constant = bias && !biasGradient ? detached(bias) : undefined;
  const settings = { scale, causal, window, cuSeqlens, biasGradient, factorGradient: [] };
  const result = run({ q, k, v, bias: constant ?? bias, keyMask }, settings);
  constant?.dispose(); // a tape that needs it keeps a copy
  return result;
}
