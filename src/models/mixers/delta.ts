/** Settings that the mixers of the delta rule share, and the rules of those whose heads have a width of their own. */
import * as z from 'zod';
import type { Lenient } from '../../config/schemaWalk.js';
import { chunkSizeSetting, count, dividesWidth, type ModelWide, type Rule, valueHeads, wholeValues } from './mixer.js';

export const deltaSettings = {
  useShortConv: z.boolean().default(true).describe('causal depthwise convolution before the SiLU on q, k and v'),
  convSize: count().default(4).describe('taps of the short convolution'),
  convBias: z.boolean().default(false),
  allowNegEigval: z.boolean().default(false).describe('write strengths up to 2: transitions may flip a sign'),
  chunkSize: chunkSizeSetting(),
};

/** Heads of a width of their own, possibly more of v than of q and k. @param expandV default of that setting */
export const headSettings = (expandV: number) => ({
  numHeads: count().default(4).describe('heads of q and k'),
  numVHeads: count().optional().describe('heads of v and the gates; a multiple of numHeads, which is the default'),
  headDim: count().optional().describe('width of a head of q and k; default hiddenSize / numHeads'),
  expandV: z.number().positive().default(expandV).describe('width of a head of v / headDim'),
});

type HeadConfig = z.output<z.ZodObject<ReturnType<typeof headSettings> & typeof deltaSettings>>;

export const headRules = (m: Lenient<HeadConfig>, { hiddenSize }: Partial<ModelWide>): Rule[] => [
  ...(m.headDim === undefined ? dividesWidth(m.numHeads, hiddenSize) : []),
  ...valueHeads(m),
  ...wholeValues(m.headDim ?? (hiddenSize && m.numHeads ? hiddenSize / m.numHeads : undefined), m.expandV),
];

/** Fills in what the heads take from other settings. */
export function resolveHeads<M extends HeadConfig>(m: M, { hiddenSize, chunkSize }: ModelWide): M {
  return {
    ...m,
    numVHeads: m.numVHeads ?? m.numHeads,
    headDim: m.headDim ?? hiddenSize / m.numHeads,
    chunkSize: m.chunkSize ?? chunkSize,
  };
}
