/** Pure functions on tensors: one folder per op. Each runs on every backend; on wasm `auto` picks the fused kernel. */

export {
  AdamW,
  type AdamWGroup,
  type AdamWOptions,
  type AdamWState,
  type AdamWStep,
  accumulate,
  NonFiniteGradientError,
} from './adamW/index.js';
export { type BatchNormInputs, type BatchNormOptions, batchNorm } from './batchNorm/index.js';
export {
  type BitLinearInputs,
  type BitLinearOptions,
  bitLinear,
  type PackedWeight,
  packedBitLinear,
  packedMatrix,
  packedWeight,
  packWeight,
  type QuantisedActivations,
  type QuantisedWeight,
  quantiseActivations,
  quantiseWeight,
  roundedActivations,
  roundedWeight,
  unpackWeight,
} from './bitLinear/index.js';
export {
  type CausalConv1dInputs,
  type CausalConv1dOptions,
  type CausalConv1dOutput,
  causalConv1d,
} from './causalConv1d/index.js';
export { type CrossEntropyOptions, crossEntropy } from './crossEntropy/index.js';
export type { DeltaOptions, DeltaOutput, DeltaRuleInputs } from './delta/inputs.js';
export { deltaRule } from './deltaRule/index.js';
export {
  type DiagonalSsmForm,
  type DiagonalSsmInputs,
  type DiagonalSsmOptions,
  type DiagonalSsmOutput,
  diagonalSsm,
} from './diagonalSsm/index.js';
export {
  type DiscretisationRule,
  type DiscretiseInputs,
  type DiscretiseOptions,
  type DiscretiseOutput,
  discretise,
} from './discretise/index.js';
export { type DplrInputs, dplr } from './dplr/index.js';
export { type EmbeddingOptions, embedding } from './embedding/index.js';
export {
  type AttentionMask,
  type FlashAttentionInputs,
  type FlashAttentionOptions,
  type FlashAttentionOutput,
  flashAttention,
} from './flashAttention/index.js';
export { type FlashBiasInputs, type FlashBiasOptions, flashBias } from './flashBias/index.js';
export { type MultiplicativeBiasInputs, multiplicativeBias } from './flashBias/multiplicative.js';
export { type GatedDeltaRuleInputs, gatedDeltaRule } from './gatedDeltaRule/index.js';
export { gatedKalmaNet } from './gatedKalmaNet/index.js';
export type {
  GatedKalmaNetInputs,
  GatedKalmaNetOptions,
  GatedKalmaNetOutput,
  GatedKalmaNetState,
} from './gatedKalmaNet/inputs.js';
export {
  type KdaGateInputs,
  type KdaGateOptions,
  kdaGate,
  type LogSigmoidGateOptions,
  logSigmoidGate,
  type MlgruGateInputs,
  type MlgruGateOptions,
  type MlgruGateOutput,
  mlgruGate,
} from './gates/index.js';
export { type GeluOptions, gelu } from './gelu/index.js';
export { type GlaInputs, type GlaOptions, type GlaOutput, gla } from './gla/index.js';
export { type GluInputs, type GluOptions, glu } from './glu/index.js';
export { type KdaInputs, kda } from './kda/index.js';
export { type L2NormOptions, l2Norm } from './l2Norm/index.js';
export { type LayerNormOptions, layerNorm } from './layerNorm/index.js';
export { linearAll } from './linear/all.js';
export { type LinearInputs, type LinearOptions, linear } from './linear/index.js';
export {
  type LinearScanInputs,
  type LinearScanOptions,
  type LinearScanOutput,
  linearScan,
} from './linearScan/index.js';
export { type IrregularScanInputs, type IrregularScanOptions, irregularScan } from './linearScan/irregular.js';
export { type LongConvolutionInputs, type LongConvolutionOptions, longConvolution } from './longConvolution/index.js';
export { type MaskedScaleOptions, maskedScale } from './maskedScale/index.js';
export {
  type MixtureOfExpertsInputs,
  type MixtureOfExpertsOptions,
  mixtureOfExperts,
  type Routing,
} from './moe/index.js';
export { type GatedRmsNormOptions, gatedRmsNorm, type RmsNormOptions, rmsNorm } from './rmsNorm/index.js';
export { type RotaryEmbeddingOptions, rotaryEmbedding } from './rotary/index.js';
export { scatterbrain } from './scatterbrain/index.js';
export type {
  RotationHash,
  ScatterbrainInputs,
  ScatterbrainOptions,
  ScatterbrainOutput,
  ScatterbrainState,
  SortedHash,
} from './scatterbrain/inputs.js';
export { defaultNbFeatures, orthogonalProjection, type ProjectionOptions } from './scatterbrain/projection.js';
export { type SwiGluInputs, type SwiGluOptions, swiGlu } from './swiGlu/index.js';
export { type VandermondeInputs, type VandermondeOptions, vandermonde } from './vandermonde/index.js';
