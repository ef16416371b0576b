/** What the config of a model needs to know of each type of mixing layer. No TensorFlow.js here: configs are checked without it. */
import * as z from 'zod';
import { quote } from '../../config/problems.js';
import type { Lenient } from '../../config/schemaWalk.js';

export type MixerSchema = z.ZodObject<{ type: z.ZodLiteral<string> } & z.ZodRawShape>;

/** The settings of the whole model that mixers may lean on. */
export interface ModelWide {
  hiddenSize: number;
  chunkSize: number;
  /** `causal_lm`: mixers may not look ahead. */
  modelType: string;
}

/** A rule that is broken: the setting to change, what is wrong with it. */
export type Rule = readonly [key: string, fault: string];

export interface MixerSettings<S extends MixerSchema = MixerSchema> {
  /** Options with their defaults; `type` names the mixer. */
  schema: S;
  /** The rules across settings that are broken. A part that is undefined is wrong by itself: leave it to the schema. */
  rules(mixer: Lenient<z.output<S>>, model: Partial<ModelWide>): Rule[];
  /** Fills in what depends on other settings. */
  resolve(mixer: z.output<S>, model: ModelWide): z.output<S>;
}

/** Gives `settings` back; it is here for the types. */
export function mixerSettings<S extends MixerSchema>(settings: MixerSettings<S>): MixerSettings<S> {
  return settings;
}

/** A positive whole number. */
export const count = () => z.int().positive();

export const chunkSizeSetting = () => count().optional().describe("tokens per chunk; default: the model's chunkSize");

export const normEpsSetting = () =>
  z
    .number()
    .positive()
    .optional()
    .describe("added to the mean square in the output norm; default: the model's normEps");

/** Heads of k and v are shared by equally many heads of q. */
export function kvHeads({ numHeads, numKvHeads }: { numHeads?: number; numKvHeads?: number }): Rule[] {
  if (!numHeads || !numKvHeads || numHeads % numKvHeads === 0) return [];
  return [['numKvHeads', `must divide numHeads ${numHeads}, got ${numKvHeads}`]];
}

/** `hiddenSize * expand` is a width that `numHeads` divides. */
export function wholeHeads(key: string, expand?: number, numHeads?: number, hiddenSize?: number): Rule[] {
  if (!expand || !numHeads || !hiddenSize) return [];
  const width = hiddenSize * expand;
  const rounded = Math.round(width); // 100 * 0.07 is 7.000000000000001
  if (Math.abs(width - rounded) < 1e-6 && rounded > 0 && rounded % numHeads === 0) return [];
  return [
    [key, `numHeads ${numHeads} must divide hiddenSize ${hiddenSize} times ${key} ${quote(expand)}, which is ${width}`],
  ];
}

/** A head is as wide as `hiddenSize / numHeads` where the config gives no width. */
export function dividesWidth(numHeads?: number, hiddenSize?: number): Rule[] {
  if (!numHeads || !hiddenSize || hiddenSize % numHeads === 0) return [];
  return [['numHeads', `must divide hiddenSize ${hiddenSize} (or set headDim), got ${numHeads}`]];
}

/** Heads of v share heads of q and k. */
export function valueHeads({ numHeads, numVHeads }: { numHeads?: number; numVHeads?: number }): Rule[] {
  if (!numHeads || !numVHeads || numVHeads % numHeads === 0) return [];
  return [['numVHeads', `must be a multiple of numHeads ${numHeads}, got ${numVHeads}`]];
}

/** `headDim * expandV` is a width. */
export function wholeValues(headDim?: number, expandV?: number): Rule[] {
  if (!headDim || !expandV || Number.isInteger(headDim * expandV)) return [];
  return [['expandV', `headDim ${headDim} times expandV ${quote(expandV)} must be whole, got ${headDim * expandV}`]];
}
