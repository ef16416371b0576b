/** Settings of the mixer `softmax_attention`: causal softmax attention with rotary positions. */
import * as z from 'zod';
import { count, dividesWidth, kvHeads, mixerSettings, type Rule } from './mixer.js';

export const softmaxAttentionSchema = z.strictObject({
  type: z.literal('softmax_attention'),
  numHeads: count().default(4).describe('heads of q'),
  numKvHeads: count().optional().describe('heads of k and v; divides numHeads, which is the default'),
  headDim: count().optional().describe('width of a head; default hiddenSize / numHeads'),
  ropeBase: z.number().positive().nullable().default(10000).describe('base of the rotary positions; null: none'),
  qkNorm: z.boolean().default(false).describe('RMSNorm over each head of q and k, as Qwen3 has it'),
  window: count().nullable().default(null).describe('tokens each token can see, itself included; null: all'),
});

export type SoftmaxAttentionConfig = z.output<typeof softmaxAttentionSchema>;

export const softmaxAttention = mixerSettings({
  schema: softmaxAttentionSchema,
  rules: (m, { hiddenSize }) => {
    const { numHeads, headDim, ropeBase } = m;
    const uneven = headDim === undefined ? dividesWidth(numHeads, hiddenSize) : [];
    if (uneven.length) return [...kvHeads(m), ...uneven];
    const width = headDim ?? (hiddenSize && numHeads ? hiddenSize / numHeads : undefined);
    const odd = ropeBase && width && width % 2;
    return [...kvHeads(m), ...(odd ? [['headDim', `must be even for rotary positions, got ${width}`] as Rule] : [])];
  },
  resolve: (m, { hiddenSize }) => ({
    ...m,
    numKvHeads: m.numKvHeads ?? m.numHeads,
    headDim: m.headDim ?? hiddenSize / m.numHeads,
  }),
});
