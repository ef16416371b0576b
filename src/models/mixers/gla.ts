/** Settings of the mixer `gla`: gated linear attention (Yang et al. 2023, https://arxiv.org/abs/2312.06635). */
import * as z from 'zod';
import { chunkSizeSetting, count, kvHeads, mixerSettings, wholeHeads } from './mixer.js';

export const glaSchema = z.strictObject({
  type: z.literal('gla'),
  numHeads: count().default(4).describe('heads of q'),
  numKvHeads: count().optional().describe('heads of k, v and the gate; divides numHeads, which is the default'),
  expandK: z.number().positive().default(0.5).describe('key width of all heads together / hiddenSize'),
  expandV: z.number().positive().default(1).describe('value width of all heads together / hiddenSize'),
  featureMap: z.enum(['relu']).nullable().default(null).describe('applied to q and k'),
  useShortConv: z.boolean().default(false).describe('causal depthwise convolution and SiLU on q, k and v'),
  convSize: count().default(4).describe('taps of the short convolution'),
  convBias: z.boolean().default(false),
  useOutputGate: z.boolean().default(true),
  gateFn: z.enum(['silu', 'sigmoid']).default('silu').describe('activation of the output gate'),
  gateLogitNormalizer: z.number().positive().default(16).describe('g = logsigmoid(x) / gateLogitNormalizer'),
  gateLowRankDim: count().default(16).describe('rank of the forget gate projection'),
  clampMin: z.number().max(0).nullable().default(null).describe('lower bound of the log gate; null: none'),
  chunkSize: chunkSizeSetting(),
});

export type GlaConfig = z.output<typeof glaSchema>;

export const gla = mixerSettings({
  schema: glaSchema,
  rules: (m, { hiddenSize }) => [
    ...kvHeads(m),
    ...wholeHeads('expandK', m.expandK, m.numHeads, hiddenSize),
    ...wholeHeads('expandV', m.expandV, m.numHeads, hiddenSize),
  ],
  resolve: (m, { chunkSize }) => ({
    ...m,
    numKvHeads: m.numKvHeads ?? m.numHeads,
    chunkSize: m.chunkSize ?? chunkSize,
  }),
});
