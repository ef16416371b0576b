/** Settings of a mixture of experts as channel mixer (DeepSeek-V3, https://arxiv.org/abs/2412.19437, Sec. 2.1.2), named as in Kimi Linear. */
import * as z from 'zod';
import { routingFault } from '../../chunked/moe/routing.js';
import type { Lenient } from '../../config/schemaWalk.js';
import { count, type Rule } from '../mixers/mixer.js';

const countOrNone = () => z.int().nonnegative();

export const moeSchema = z.strictObject({
  numExperts: count().default(8).describe('experts to choose from'),
  numExpertsPerToken: count().default(2),
  numSharedExperts: countOrNone().default(1).describe('experts that every token goes through'),
  moeIntermediateSize: count()
    .optional()
    .describe("width inside an expert; default: the dense layers' intermediateSize"),
  renormalize: z.boolean().default(true).describe("divide the weights of a token's experts by their sum"),
  routedScalingFactor: z.number().default(1).describe('factor on those weights'),
  numExpertGroup: count().default(1).describe('experts are chosen out of some groups of neighbours only'),
  topkGroup: count().default(1).describe('groups that a token keeps'),
  firstKDenseReplace: countOrNone().default(1).describe('the first layers, which keep a dense SwiGLU'),
  moeLayerFreq: count().default(1).describe('after them, layers whose number is a multiple of this have experts'),
  balanceRate: z
    .number()
    .nonnegative()
    .default(0.001)
    .describe("step of an expert's bias towards an even load, after each update"),
});

/** All options of the layers with experts. */
export type MoeConfig = Required<z.output<typeof moeSchema>>;

/** The rules across settings that are broken. A part that is undefined is wrong by itself and skipped. */
export function moeRules({ numExperts, ...m }: Lenient<z.output<typeof moeSchema>>): Rule[] {
  const { numExpertsPerToken, numExpertGroup, topkGroup } = m;
  if (!numExperts || !numExpertsPerToken || !numExpertGroup || !topkGroup) return [];
  const fault = routingFault({ numExpertsPerToken, numExpertGroup, topkGroup }, numExperts);
  return fault ? [fault] : [];
}

/** Whether a layer (counted from 0) has experts. */
export function hasExperts(moe: MoeConfig | undefined, layer: number): moe is MoeConfig {
  return moe !== undefined && layer >= moe.firstKDenseReplace && layer % moe.moeLayerFreq === 0;
}
