/** Settings of the mixer `s4d`: S4D (Gu et al. 2022, https://arxiv.org/abs/2206.11893), with `ptd` S4-PTD (https://arxiv.org/abs/2310.01698). */
import * as z from 'zod';
import { count, mixerSettings, type Rule } from './mixer.js';
import { ptdSchema, rate } from './ptd.js';

export const s4dSchema = z.strictObject({
  type: z.literal('s4d'),
  stateSize: count().default(64).describe('states of a channel, both of a conjugate pair counted; even'),
  spectrum: z
    .enum(['legs', 'lin', 'inv', 'inv2', 'quad', 'rand', 'real'])
    .default('legs')
    .describe('eigenvalues at the start'),
  ptd: ptdSchema.nullable().default(null),
  legsB: z.enum(['half', 'full', 'clip2']).default('half').describe('start of B with spectrum legs'),
  bInit: z
    .enum(['spectrum', 'ones', 'random', 'alternating', 'unitCw', 'unitCcw'])
    .nullable()
    .default(null)
    .describe('start of B; null: that of the spectrum'),
  cInit: z
    .enum(['normal', 'unitParts', 'projected', 'first'])
    .nullable()
    .default(null)
    .describe('start of C; null: normal, with ptd projected'),
  copies: count()
    .nullable()
    .default(null)
    .describe('copies of A and B that channels share; null: one for each channel'),
  discretisation: z.enum(['zoh', 'bilinear']).default('zoh'),
  realTransform: z
    .enum(['exp', 'relu', 'none', 'sigmoid', 'softplus'])
    .default('exp')
    .describe('how the decays of the modes are held'),
  dtTransform: z.enum(['exp', 'softplus']).default('exp').describe('how the steps are held'),
  dtPer: z.enum(['channel', 'mode']).default('channel').describe('a step for each channel, or for each of its modes'),
  dtMin: z.number().positive().default(1e-3).describe('least step at the start'),
  dtMax: z.number().positive().default(0.1).describe('largest step at the start'),
  bidirectional: z.boolean().default(false).describe('read from the end too; not in a causal model'),
  trainB: z.boolean().default(true).describe('B is a weight; else it keeps its start'),
  bandlimit: z
    .number()
    .positive()
    .nullable()
    .default(null)
    .describe('modes of half as many turns per step count for nothing'),
  rate: z.number().positive().default(1).describe('factor of all steps'),
  activation: z.enum(['gelu']).nullable().default('gelu'),
  dropout: z.number().min(0).lt(1).default(0).describe('share of the values dropped in training'),
  tieDropout: z.boolean().default(true).describe('drop the same channels at all tokens'),
  gate: z.enum(['glu']).nullable().default('glu').describe('gate of the projection that mixes the channels'),
  ssmLearningRate: z
    .union([rate(), z.strictObject({ A: rate().optional(), B: rate().optional(), dt: rate().optional() })])
    .default(1e-3)
    .describe("peak learning rate of the modes, B and the steps; null: the run's"),
});

export type S4dConfig = z.output<typeof s4dSchema>;

export const s4d = mixerSettings({
  schema: s4dSchema,
  rules: (
    { stateSize, copies, dtMin, dtMax, bidirectional, ptd, spectrum, trainB, bInit },
    { hiddenSize, modelType },
  ) => {
    const rules: Rule[] = [];
    if (stateSize && stateSize % 2 !== 0) rules.push(['stateSize', `must be even, got ${stateSize}`]);
    if (copies && hiddenSize && hiddenSize % copies !== 0)
      rules.push(['copies', `must divide hiddenSize ${hiddenSize}, got ${copies}`]);
    if (dtMin && dtMax && dtMin > dtMax) rules.push(['dtMin', `must be at most dtMax ${dtMax}, got ${dtMin}`]);
    if (ptd && spectrum && spectrum !== 'legs') rules.push(['ptd', `starts from spectrum "legs", got "${spectrum}"`]);
    if (trainB === false && bInit === 'random') rules.push(['bInit', 'must not be random where B does not train']);
    if (bidirectional && modelType === 'causal_lm')
      rules.push(['bidirectional', 'must be false in a causal model, which may not look ahead']);
    return rules;
  },
  resolve: (m) => m,
});
