/** Families of published checkpoints: how their `config.json` and tensors become ours. A new family adds one line. */

import type { ModelConfig } from '../config.js';
import type { NamedArrays } from '../trainableModel.js';
import { configFromFla, isFlaConfig, weightsFromFla } from './fla.js';
import { configFromHgrnBit, isHgrnBitConfig, weightsFromHgrnBit } from './hgrnBit.js';
import { configFromHybridQwen3, isHybridConfig, weightsFromHybridQwen3 } from './hybridQwen3.js';
import { configFromKimiLinear, isKimiLinearConfig, weightsFromKimiLinear } from './kimiLinear.js';

export interface Family {
  /** True when a `config.json` is of this family. */
  is(json: unknown): boolean;
  /** Our config. @throws ConfigError listing everything that is not supported */
  config(json: unknown, source?: string): ModelConfig;
  /** The tensors as `CausalLM` takes them; the map may be used up. */
  weights(tensors: Map<string, { shape: readonly number[]; data: Float32Array }>, config: ModelConfig): NamedArrays;
}

const families: readonly Family[] = [
  { is: isFlaConfig, config: configFromFla, weights: weightsFromFla },
  { is: isHybridConfig, config: configFromHybridQwen3, weights: weightsFromHybridQwen3 },
  { is: isKimiLinearConfig, config: configFromKimiLinear, weights: weightsFromKimiLinear },
  { is: isHgrnBitConfig, config: configFromHgrnBit, weights: weightsFromHgrnBit },
];

/** The family a `config.json` is of; undefined for a config of ours. */
export function familyOf(json: unknown): Family | undefined {
  return families.find((family) => family.is(json));
}
