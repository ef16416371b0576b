/** Settings of the mixer `kda`: Kimi Delta Attention (Kimi Linear 2025, https://arxiv.org/abs/2510.26692). */
import * as z from 'zod';
import { deltaSettings, headRules, headSettings, resolveHeads } from './delta.js';
import { mixerSettings, type Rule } from './mixer.js';

export const kdaSchema = z.strictObject({
  type: z.literal('kda'),
  ...headSettings(1),
  lowerBound: z.number().min(-5).lt(0).nullable().default(null).describe('lowest log decay of a token; null: none'),
  safeGate: z.boolean().default(false).describe('rates start at 1; needs lowerBound'),
  gateBias: z.boolean().default(true).describe('bias on the output gate'),
  ...deltaSettings,
});

export type KdaConfig = z.output<typeof kdaSchema>;

export const kda = mixerSettings({
  schema: kdaSchema,
  rules: (m, model) => [
    ...headRules(m, model),
    ...(m.safeGate && m.lowerBound === null
      ? [['lowerBound', 'must be given with safeGate (-5 is usual)'] as Rule]
      : []),
  ],
  resolve: resolveHeads,
});
