/** Settings of the mixer `gka`: Gated KalmaNet (2025, https://arxiv.org/abs/2511.21016). */
import * as z from 'zod';
import { chunkSizeSetting, count, dividesWidth, mixerSettings, normEpsSetting, type Rule } from './mixer.js';

export const gkaSchema = z.strictObject({
  type: z.literal('gka'),
  numHeads: count().default(4).describe('heads of q'),
  numKHeads: count().optional().describe('heads of k; default numHeads; the largest number of heads is that of all'),
  numVHeads: count().optional().describe('heads of v; default numHeads'),
  headDim: count().optional().describe('width of a head; default hiddenSize / numHeads'),
  numIterations: z.int().min(0).default(30).describe('steps of the Chebyshev iteration; fewer are less exact'),
  ridgeRatio: z.number().positive().default(0.02).describe('ridge / norm of the covariance of the keys'),
  solver: z.enum(['chebyshev', 'exact']).default('chebyshev').describe('how the ridge regression is solved'),
  lambdaGradient: z.boolean().default(true).describe('gradients also through the ridge'),
  useShortConv: z.boolean().default(true).describe('causal depthwise convolution before the SiLU on q, k and v'),
  convSize: count().default(4).describe('taps of the short convolution'),
  convBias: z.boolean().default(false),
  useVConv: z.boolean().default(true).describe('convolution and SiLU also on v'),
  useBetaGate: z.boolean().default(true).describe('scale k and v by a write strength'),
  useAlphaConnection: z.boolean().default(true).describe('mix the solution with q by a learned gate'),
  useForgettingGate: z.boolean().default(true),
  useForgettingGateKk: z.boolean().default(true).describe('let the covariance of the keys forget too'),
  useScale: z.boolean().default(true).describe('scale the output by headDim^-0.5 before its norm'),
  useOutputGate: z.boolean().default(true).describe('multiply the normed output by the SiLU of a projection'),
  kvProjRank: count().nullable().default(null).describe('rank that sets apart heads that share k or v; null: none'),
  kvLearnableResidual: z.boolean().default(false).describe('learn how heads share k and v; needs kvProjRank'),
  normEps: normEpsSetting(),
  chunkSize: chunkSizeSetting(),
});

export type GkaConfig = z.output<typeof gkaSchema>;

export const gka = mixerSettings({
  schema: gkaSchema,
  rules: (m, { hiddenSize }) => [
    ...(m.headDim === undefined ? dividesWidth(m.numHeads, hiddenSize) : []),
    ...sharedHeads(m),
  ],
  resolve: (m, { hiddenSize, chunkSize }) => ({
    ...m,
    numKHeads: m.numKHeads ?? m.numHeads,
    numVHeads: m.numVHeads ?? m.numHeads,
    headDim: m.headDim ?? hiddenSize / m.numHeads,
    chunkSize: m.chunkSize ?? chunkSize,
  }),
});

type Heads = Partial<Pick<GkaConfig, 'numHeads' | 'numKHeads' | 'numVHeads'>>;

function sharedHeads({
  kvProjRank,
  kvLearnableResidual,
  ...m
}: Heads & Partial<Pick<GkaConfig, 'kvProjRank' | 'kvLearnableResidual'>>): Rule[] {
  if (!m.numHeads) return [];
  const heads = { numHeads: m.numHeads, numKHeads: m.numKHeads ?? m.numHeads, numVHeads: m.numVHeads ?? m.numHeads };
  const all = Math.max(...Object.values(heads));
  const odd = Object.entries(heads).filter(([, count]) => all % count !== 0);
  const own = heads.numKHeads === all && heads.numVHeads === all;
  return [
    ...odd.map(([key, count]): Rule => [key, `must divide ${all}, the largest number of heads, got ${count}`]),
    ...(kvProjRank && own ? [['kvProjRank', 'needs heads that share k or v, but all have their own'] as Rule] : []),
    ...(kvLearnableResidual && kvProjRank === null
      ? [['kvProjRank', 'must be given with kvLearnableResidual'] as Rule]
      : []),
  ];
}
