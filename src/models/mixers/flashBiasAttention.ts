/** Settings of the mixer `flash_bias_attention`: softmax attention whose positions are a bias of low rank (https://arxiv.org/abs/2505.12044). */
import * as z from 'zod';
import { count, dividesWidth, kvHeads, mixerSettings, type Rule } from './mixer.js';

export const flashBiasAttentionSchema = z.strictObject({
  type: z.literal('flash_bias_attention'),
  numHeads: count().default(4).describe('heads of q'),
  numKvHeads: count().optional().describe('heads of k and v; divides numHeads, which is the default'),
  headDim: count().optional().describe('width of a head; default hiddenSize / numHeads'),
  bias: z
    .enum(['alibi', 't5', 'learned'])
    .default('alibi')
    .describe('alibi: slopes; t5: buckets of the distance; learned: factors of each position are weights'),
  slopes: z.enum(['formula', 'published', 'learned']).default('formula').describe('slopes of alibi'),
  numBuckets: z.int().min(2).default(32).describe('of t5'),
  maxDistance: count().default(128).describe('of t5: distances from here on share a bucket'),
  rank: count().default(16).describe('of learned: numbers in a factor'),
  maxLength: count().default(1024).describe('of learned: positions there are factors for'),
  qkNorm: z.boolean().default(false).describe('RMSNorm over each head of q and k, as Qwen3 has it'),
  window: count().nullable().default(null).describe('tokens each token can see, itself included; null: all'),
  bidirectional: z.boolean().default(false).describe('see all tokens; with bias learned, and not in a causal model'),
});

export type FlashBiasAttentionConfig = z.output<typeof flashBiasAttentionSchema>;

export const flashBiasAttention = mixerSettings({
  schema: flashBiasAttentionSchema,
  rules: (m, { hiddenSize, modelType }) => {
    const { numHeads, headDim, bias, window, bidirectional, numBuckets, maxDistance } = m;
    const rules: Rule[] = [...kvHeads(m), ...(headDim === undefined ? dividesWidth(numHeads, hiddenSize) : [])];
    if (bidirectional && modelType === 'causal_lm')
      rules.push(['bidirectional', 'must be false in a causal model, which may not look ahead']);
    if (bidirectional && bias && bias !== 'learned')
      rules.push(['bias', `must be learned where bidirectional, got ${bias}, which is for the past alone`]);
    if (bidirectional && window) rules.push(['window', `must be null where bidirectional, got ${window}`]);
    if (numBuckets && maxDistance && maxDistance <= Math.floor(numBuckets / 2))
      rules.push(['maxDistance', `must be above numBuckets / 2, got ${maxDistance} and numBuckets ${numBuckets}`]);
    return rules;
  },
  resolve: (m, { hiddenSize }) => ({
    ...m,
    numKvHeads: m.numKvHeads ?? m.numHeads,
    headDim: m.headDim ?? hiddenSize / m.numHeads,
  }),
});
