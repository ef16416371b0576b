/** Settings of the mixer `scatterbrain_attention`: Scatterbrain attention (Chen et al. 2021, https://arxiv.org/abs/2110.15343). */
import * as z from 'zod';
import { count, dividesWidth, mixerSettings, type Rule } from './mixer.js';

const hashSchema = z.strictObject({
  type: z.enum(['rotation', 'sorted']).default('rotation').describe('sorted: only where tokens see all others'),
  bucketSize: count().default(32).describe('keys of its bucket that a query sees; sorted: queries of a bucket'),
  numBuckets: count().default(16).describe('buckets of the rotation hash; even'),
  rounds: count().default(1),
});

export const scatterbrainAttentionSchema = z.strictObject({
  type: z.literal('scatterbrain_attention'),
  numHeads: count().default(4),
  headDim: count().optional().describe('width of a head; default hiddenSize / numHeads'),
  nbFeatures: count().nullable().default(null).describe('random features; even; null: E ln E for heads of width E'),
  windowSize: count()
    .nullable()
    .default(64)
    .describe('tokens that each token sees exactly, itself included; null: none'),
  hash: hashSchema.nullable().default(null).describe('more exact pairs: those in one bucket'),
  softmaxTemp: z.number().positive().nullable().default(null).describe('factor on q k; null: headDim^-0.5'),
  mode: z
    .enum(['sum', 'sparse-only', 'low-rank-only'])
    .default('sum')
    .describe('exact pairs and features, or one of the two alone'),
  ropeBase: z.number().positive().nullable().default(10000).describe('base of the rotary positions; null: none'),
  bidirectional: z.boolean().default(false).describe('tokens see all others; not in a causal model'),
});

export type ScatterbrainAttentionConfig = z.output<typeof scatterbrainAttentionSchema>;

export const scatterbrainAttention = mixerSettings({
  schema: scatterbrainAttentionSchema,
  rules: (m, { hiddenSize, modelType }) => {
    const { numHeads, headDim, nbFeatures, windowSize, hash, mode, ropeBase, bidirectional } = m;
    const rules: Rule[] = headDim === undefined ? dividesWidth(numHeads, hiddenSize) : [];
    const width = headDim ?? (hiddenSize && numHeads && rules.length === 0 ? hiddenSize / numHeads : undefined);
    if (ropeBase && width && width % 2) rules.push(['headDim', `must be even for rotary positions, got ${width}`]);
    if (nbFeatures && nbFeatures % 2) rules.push(['nbFeatures', `must be even, got ${nbFeatures}`]);
    if (hash?.numBuckets && hash.numBuckets % 2)
      rules.push(['hash', `numBuckets must be even, got ${hash.numBuckets}`]);
    if (hash?.type === 'sorted' && bidirectional === false)
      rules.push(['hash', 'type "sorted" looks ahead and needs "bidirectional": true; take "rotation"']);
    if (mode === 'sparse-only' && windowSize === null && hash === null)
      rules.push(['mode', '"sparse-only" needs windowSize or hash']);
    if (bidirectional && modelType === 'causal_lm')
      rules.push(['bidirectional', 'must be false in a causal model, which may not look ahead']);
    return rules;
  },
  resolve: (m, { hiddenSize }) => ({ ...m, headDim: m.headDim ?? hiddenSize / m.numHeads }),
});
