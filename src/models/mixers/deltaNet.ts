/** Settings of the mixer `delta_net`: DeltaNet (Yang et al. 2024, https://arxiv.org/abs/2406.06484). */
import * as z from 'zod';
import { deltaSettings } from './delta.js';
import { count, mixerSettings, wholeHeads } from './mixer.js';

export const deltaNetSchema = z.strictObject({
  type: z.literal('delta_net'),
  numHeads: count().default(4),
  expandK: z.number().positive().default(1).describe('key width of all heads together / hiddenSize'),
  expandV: z.number().positive().default(1).describe('value width of all heads together / hiddenSize'),
  useOutputGate: z.boolean().default(false).describe('multiply the normed output by the SiLU of a projection'),
  ...deltaSettings,
});

export type DeltaNetConfig = z.output<typeof deltaNetSchema>;

export const deltaNet = mixerSettings({
  schema: deltaNetSchema,
  rules: (m, { hiddenSize }) => [
    ...wholeHeads('expandK', m.expandK, m.numHeads, hiddenSize),
    ...wholeHeads('expandV', m.expandV, m.numHeads, hiddenSize),
  ],
  resolve: (m, { chunkSize }) => ({ ...m, chunkSize: m.chunkSize ?? chunkSize }),
});
