/** The settings of every mixing layer by its type. A new mixer adds one file here, one line below, and one in `../registry.ts`. */
import * as z from 'zod';
import { deltaNet } from './deltaNet.js';
import { flashBiasAttention } from './flashBiasAttention.js';
import { gatedDeltaNet } from './gatedDeltaNet.js';
import { gka } from './gka.js';
import { gla } from './gla.js';
import { kda } from './kda.js';
import type { MixerSettings } from './mixer.js';
import { mla } from './mla.js';
import { mlgru } from './mlgru.js';
import { s4d } from './s4d.js';
import { s5 } from './s5.js';
import { scatterbrainAttention } from './scatterbrainAttention.js';
import { softmaxAttention } from './softmaxAttention.js';

export const mixers = {
  delta_net: deltaNet,
  flash_bias_attention: flashBiasAttention,
  gated_delta_net: gatedDeltaNet,
  gka,
  gla,
  kda,
  mla,
  mlgru,
  s5,
  s4d,
  scatterbrain_attention: scatterbrainAttention,
  softmax_attention: softmaxAttention,
} as const;

type Mixers = typeof mixers;
export type MixerType = keyof Mixers;
/** All options of a mixing layer of type T. */
export type MixerConfigOf<T extends MixerType> = z.output<Mixers[T]['schema']>;
/** All options of one mixing layer, `type` says which. */
export type MixerConfig = { [T in MixerType]: MixerConfigOf<T> }[MixerType];

/** Settings of a type that is only known at run time; undefined when there is no such mixer. */
export function settingsOf(type: unknown): MixerSettings | undefined {
  return Object.hasOwn(mixers, type as string) ? (mixers[type as MixerType] as unknown as MixerSettings) : undefined;
}

const mixerTypes = Object.keys(mixers) as [MixerType, ...MixerType[]];
const [firstSchema, ...otherSchemas] = mixerTypes.map((type) => mixers[type].schema);

/** A mixer by its name alone or with options. */
export const mixerSchema = z.union([z.enum(mixerTypes), z.discriminatedUnion('type', [firstSchema, ...otherSchemas])]);

type Options<T extends MixerType> = Partial<Omit<MixerConfigOf<T>, 'type'>>;
type Shared = { [T in MixerType]: z.ZodOptional<z.ZodType<Options<T>, Options<T>>> };

/** Options for all mixers of a type, by type. */
export const mixerDefaultsSchema = z.strictObject(
  Object.fromEntries(
    mixerTypes.map((type) => [type, settingsOf(type)?.schema.omit({ type: true }).partial().optional()]),
  ) as unknown as Shared,
);
