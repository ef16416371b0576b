/**
 * Language models: one decoder built from a config, generation, descriptions, adapters to published checkpoints. Classifiers and
 * regressors of whole sequences out of the same layers.
 */

export { configFromFla, configToFla, isFlaConfig, weightsFromFla } from './adapters/fla.js';
export { configFromHgrnBit, configToHgrnBit, isHgrnBitConfig, weightsFromHgrnBit } from './adapters/hgrnBit.js';
export {
  configFromHybridQwen3,
  configToHybridQwen3,
  isHybridConfig,
  weightsFromHybridQwen3,
  weightsToHybridQwen3,
} from './adapters/hybridQwen3.js';
export {
  configFromKimiLinear,
  configToKimiLinear,
  isKimiLinearConfig,
  weightsFromKimiLinear,
  weightsToKimiLinear,
} from './adapters/kimiLinear.js';
export { type AnyModelConfig, anyModelProblems, anyModelSchemas, resolveAnyModelConfig } from './anyConfig.js';
export { type AnyModel, createAnyModel } from './anyModel.js';
export {
  CausalLM,
  type CausalLMForwardOptions,
  type CausalLMOptions,
  type CausalLMOutput,
  type LossOptions,
  type ModelState,
} from './causalLM.js';
export {
  type ModelConfig,
  type ModelConfigInput,
  modelConfigSchema,
  modelProblems,
  resolveModelConfig,
} from './config.js';
export {
  describe,
  formatDescription,
  type LayerDescription,
  type ModelDescription,
  type StateDescription,
} from './describe.js';
export { type GeneratedToken, type GenerateOptions, generate, isLongPrompt, type Prefill } from './generate.js';
export type { LayerRange } from './layerRange.js';
export { type MixerConfig, type MixerConfigOf, type MixerType, mixers } from './mixers/index.js';
export type { MoeConfig } from './mlps/moe.js';
export { packModel } from './packed.js';
export { type SamplingOptions, sampleToken } from './sampling.js';
export * from './sequence/index.js';
export { Session, SessionError } from './session.js';
export { type NamedArrays, type PackedArrays, TrainableModel, WeightsError } from './trainableModel.js';
