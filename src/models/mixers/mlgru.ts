/** Settings of the mixer `mlgru`: MatMul-free language models (Zhu et al. 2024, https://arxiv.org/abs/2406.02528). */
import * as z from 'zod';
import { count, mixerSettings } from './mixer.js';

export const mlgruSchema = z.strictObject({
  type: z.literal('mlgru'),
  expandRatio: z.number().positive().default(1).describe('width of the state / hiddenSize'),
  linear: z
    .enum(['bit', 'dense'])
    .default('bit')
    .describe('dense: projections in full precision, without norms of their own, whatever the model has'),
  useShortConv: z.boolean().default(false).describe('causal depthwise convolution and SiLU'),
  convSize: count().default(4).describe('taps of the short convolution'),
  convBias: z.boolean().default(false),
  shareConvKernel: z
    .boolean()
    .default(true)
    .describe('one convolution of what the layer reads; false: one each of the projections i and f'),
  useLowerBound: z.boolean().default(true).describe('deeper layers keep more of their state, as they learn together'),
});

export type MlgruConfig = z.output<typeof mlgruSchema>;

export const mlgru = mixerSettings({
  schema: mlgruSchema,
  rules: ({ expandRatio }, { hiddenSize }) =>
    !expandRatio || !hiddenSize || Number.isInteger(hiddenSize * expandRatio)
      ? []
      : [['expandRatio', `hiddenSize ${hiddenSize} times expandRatio ${expandRatio} must be whole`]],
  resolve: (m) => m,
});
