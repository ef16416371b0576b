/** Settings of the mixer `s5`: S5 (Smith et al. 2022, https://arxiv.org/abs/2208.04933), with `ptd` S5-PTD (https://arxiv.org/abs/2310.01698). */
import * as z from 'zod';
import { count, mixerSettings, type Rule } from './mixer.js';
import { PTD, ptdSettings, rate } from './ptd.js';

export const s5Schema = z.strictObject({
  type: z.literal('s5'),
  stateSize: count().default(256).describe('states before conjugates are left out; an even multiple of blocks'),
  blocks: count().default(8).describe('HiPPO-LegS matrices on the diagonal of the start'),
  conjugate: z.boolean().default(true).describe('keep one mode of each conjugate pair'),
  clipEigs: z.boolean().default(false).describe('hold the real parts of the modes at or below -1e-4'),
  discretisation: z.enum(['zoh', 'bilinear']).default('zoh'),
  bInit: z.enum(['lecun', 'hippo']).default('lecun').describe('start of the input matrix'),
  cInit: z.enum(['truncated', 'lecun', 'complexNormal']).default('truncated').describe('start of the output matrix'),
  bidirectional: z.boolean().default(false).describe('read from the end too; not in a causal model'),
  dtMin: z.number().positive().default(1e-3).describe('least step at the start'),
  dtMax: z.number().positive().default(0.1).describe('largest step at the start'),
  gate: z
    .enum(['full_glu', 'half_glu1', 'half_glu2', 'gelu', 'none'])
    .default('half_glu1')
    .describe('what follows the state space'),
  dropout: z.number().min(0).lt(1).default(0).describe('share of the features dropped in training, along all tokens'),
  ptd: z
    .strictObject({
      ...ptdSettings,
      blocks: z.enum(['own', 'same']).optional().describe('a perturbation for each block (default) or one'),
    })
    .describe(PTD)
    .nullable()
    .default(null),
  parameterGroups: z
    .enum(['standard', 'BandCdecay', 'BfastandCdecay', 'noBCdecay'])
    .default('standard')
    .describe('which weights decay and which train at ssmLearningRate, as in the published runs'),
  dtGlobal: z.boolean().default(false).describe("train the steps at the run's rate"),
  ssmLearningRate: z
    .union([rate(), z.strictObject({ A: rate().optional(), B: rate().optional(), dt: rate().optional() })])
    .default(1e-3)
    .describe("peak learning rate of the modes, B and the steps; null: the run's"),
});

export type S5Config = z.output<typeof s5Schema>;

export const s5 = mixerSettings({
  schema: s5Schema,
  rules: ({ stateSize, blocks, dtMin, dtMax, bidirectional }, { modelType }) => {
    const rules: Rule[] = [];
    if (stateSize && blocks && stateSize % (2 * blocks) !== 0)
      rules.push(['stateSize', `must be an even multiple of blocks ${blocks}, got ${stateSize}`]);
    if (dtMin && dtMax && dtMin > dtMax) rules.push(['dtMin', `must be at most dtMax ${dtMax}, got ${dtMin}`]);
    if (bidirectional && modelType === 'causal_lm')
      rules.push(['bidirectional', 'must be false in a causal model, which may not look ahead']);
    return rules;
  },
  resolve: (m) => m,
});
