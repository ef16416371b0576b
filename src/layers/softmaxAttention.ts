/**
 * Causal softmax attention with rotary positions (Su et al. 2021, https://arxiv.org/abs/2104.09864) and shared key/value heads
 * (Ainslie et al. 2023, https://arxiv.org/abs/2305.13245), the quadratic layer of hybrid models.
 */
import * as tf from '@tensorflow/tfjs';
import { flashAttention, rotaryEmbedding } from '../chunked/index.js';
import {
  type AttentionHeads,
  AttentionLayer,
  type AttentionOptions,
  type AttentionPlace,
  attentionDefaults,
} from './attentionLayer.js';
import type { LayerArgs } from './seqLayer.js';

export interface SoftmaxAttentionOptions extends AttentionOptions {
  /** Base of the rotary frequencies, default 10000; null: no positions. */
  ropeBase: number | null;
}

const defaults: Omit<SoftmaxAttentionOptions, 'hiddenSize'> = { ...attentionDefaults, ropeBase: 10000 };

/** [B, T, D] -> [B, T, D]; state as in `AttentionLayer`: the (rotated) keys and values of the past. */
export class SoftmaxAttention extends AttentionLayer<SoftmaxAttentionOptions> {
  static readonly className: string = 'SoftmaxAttention';

  /** @throws RangeError when an option is unknown or does not fit the others */
  constructor(args: LayerArgs<SoftmaxAttentionOptions>) {
    super(args, defaults);
    const { ropeBase } = this.options;
    this.require(ropeBase === null || ropeBase > 1, `ropeBase must be greater than 1, got ${ropeBase}`);
    this.require(
      ropeBase === null || this.headDim % 2 === 0,
      `headDim must be even for rotary positions, got ${this.headDim}; give an even headDim or ropeBase: null`,
    );
  }

  protected override positioned(x: tf.Tensor, { offset, cuSeqlens }: AttentionPlace): tf.Tensor {
    const { ropeBase } = this.options;
    return ropeBase === null ? x : rotaryEmbedding({ x }, { base: ropeBase, offset, cuSeqlens });
  }

  protected override attend(heads: AttentionHeads, { cuSeqlens }: AttentionPlace): tf.Tensor {
    return flashAttention(heads, { causal: true, window: this.options.window ?? undefined, cuSeqlens }).o;
  }
}
tf.serialization.registerClass(SoftmaxAttention);
