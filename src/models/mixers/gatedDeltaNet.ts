/** Settings of the mixer `gated_delta_net`: Gated DeltaNet (Yang et al. 2024, https://arxiv.org/abs/2412.06464). */
import * as z from 'zod';
import { deltaSettings, headRules, headSettings, resolveHeads } from './delta.js';
import { mixerSettings, normEpsSetting } from './mixer.js';

export const gatedDeltaNetSchema = z.strictObject({
  type: z.literal('gated_delta_net'),
  ...headSettings(2),
  useOutputGate: z.boolean().default(true).describe('multiply the normed output by the SiLU of a projection'),
  normEps: normEpsSetting(),
  ...deltaSettings,
});

export type GatedDeltaNetConfig = z.output<typeof gatedDeltaNetSchema>;

export const gatedDeltaNet = mixerSettings({
  schema: gatedDeltaNetSchema,
  rules: headRules,
  resolve: resolveHeads,
});
