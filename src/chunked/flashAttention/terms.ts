/** What may be added to the scores beside a dense bias: shared by `flashAttention` and `flashBias`, which differ in what they let through. */
import type * as tf from '@tensorflow/tfjs';
import type { AttentionMask, FlashAttentionInputs } from './index.js';

/** All inputs that the forms of attention take. */
export interface AttentionInputs extends FlashAttentionInputs {
  /** Factors of the queries [B or 1, T, H or 1, R]; their product with those of the keys is added to the scaled scores. */
  phiQ?: tf.Tensor;
  /** Factors of the keys [B or 1, S, H or 1, R]: heads are those of the queries. */
  phiK?: tf.Tensor;
  /** [B or 1, T or 1, H or 1, 2 w - 1]: added to the scaled scores of the keys less than w from the query's own position, the last past first. */
  band?: tf.Tensor;
}

/** Terms that `flashBias` differentiates. */
export type FactorName = 'phiQ' | 'phiK' | 'band';

/** All options of an attention, as its forms take them. */
export interface AttentionSettings extends AttentionMask {
  scale: number;
  causal: boolean;
  biasGradient: boolean;
  /** The others are constants. */
  factorGradient: readonly FactorName[];
}
