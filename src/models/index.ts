/** Language models: one decoder built from a config, generation, descriptions, adapters to published checkpoints. */
export {
  CausalLM,
  type CausalLMForwardOptions,
  type CausalLMOptions,
  type CausalLMOutput,
  type LossOptions,
  type ModelState,
  type NamedArrays,
  WeightsError,
} from './causalLM.js';
export {
  type GlaConfig,
  glaSchema,
  type MixerConfig,
  type MixerType,
  type ModelConfig,
  type ModelConfigInput,
  mixerSchemas,
  modelConfigSchema,
  modelProblems,
  resolveModelConfig,
  type SoftmaxAttentionConfig,
  softmaxAttentionSchema,
} from './config.js';
