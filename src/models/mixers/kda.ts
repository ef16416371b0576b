/** Settings of the mixer `kda`: Kimi Delta Attention (Kimi Linear 2025, https://arxiv.org/abs/2510.26692). */
import * as z from 'zod';
import { chunkSizeSetting, count, dividesWidth, mixerSettings, valueHeads, wholeValues } from './mixer.js';

export const kdaSchema = z.strictObject({
  type: z.literal('kda'),
  numHeads: count().default(4).describe('heads of q and k'),
  numVHeads: count()
    .optional()
    .describe('heads of v, the decay and the write strength; a multiple of numHeads, which is the default'),
  headDim: count().optional().describe('key width of a head; default hiddenSize / numHeads'),
  expandV: z.number().positive().default(1).describe('value width of a head / headDim'),
  useShortConv: z.boolean().default(true).describe('causal depthwise convolution before the SiLU on q, k and v'),
  convSize: count().default(4).describe('taps of the short convolution'),
  convBias: z.boolean().default(false),
  allowNegEigval: z.boolean().default(false).describe('write strengths up to 2: transitions may flip a sign'),
  lowerBound: z.number().min(-5).lt(0).nullable().default(null).describe('lowest log decay of a token; null: none'),
  safeGate: z.boolean().default(false).describe('rates start at 1; needs lowerBound'),
  gateBias: z.boolean().default(true).describe('bias on the output gate'),
  chunkSize: chunkSizeSetting(),
});

export type KdaConfig = z.output<typeof kdaSchema>;

export const kda = mixerSettings({
  schema: kdaSchema,
  rules: (m, { hiddenSize }) => [
    ...(m.headDim === undefined ? dividesWidth(m.numHeads, hiddenSize) : []),
    ...valueHeads(m),
    ...wholeValues(m.headDim ?? (hiddenSize && m.numHeads ? hiddenSize / m.numHeads : undefined), m.expandV),
    ...(m.safeGate && m.lowerBound === null
      ? [['lowerBound', 'must be given with safeGate (-5 is usual)'] as const]
      : []),
  ],
  resolve: (m, { hiddenSize, chunkSize }) => ({
    ...m,
    numVHeads: m.numVHeads ?? m.numHeads,
    headDim: m.headDim ?? hiddenSize / m.numHeads,
    chunkSize: m.chunkSize ?? chunkSize,
  }),
});
