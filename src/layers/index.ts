/** Sequence-mixing layers: each is a `tf.layers.Layer` with `forward(x, state?) -> { y, state }`. */
export { BatchNorm, type BatchNormOptions } from './batchNorm.js';
export { BitGLU, type BitGLUOptions } from './bitGLU.js';
export { BitLinear, type BitLinearOptions } from './bitLinear.js';
export { DeltaNet, type DeltaNetOptions } from './deltaNet.js';
export { type DropoutOptions, dropout } from './dropout.js';
export { FlashBiasAttention, type FlashBiasAttentionOptions } from './flashBiasAttention.js';
export { GatedDeltaNet, type GatedDeltaNetOptions } from './gatedDeltaNet.js';
export { GatedKalmaNet, type GatedKalmaNetOptions } from './gatedKalmaNet.js';
export { GatedLinearAttention, type GatedLinearAttentionOptions } from './gatedLinearAttention.js';
export { InputProjection, type InputProjectionOptions } from './inputProjection.js';
export { KimiDeltaAttention, type KimiDeltaAttentionOptions } from './kimiDeltaAttention.js';
export { LayerNorm, type LayerNormOptions } from './layerNorm.js';
export { MixtureOfExperts, type MixtureOfExpertsOptions } from './mixtureOfExperts.js';
export { LowerBounds, type LowerBoundsOptions, MLGRU, type MLGRUOptions } from './mlgru.js';
export { MultiHeadLatentAttention, type MultiHeadLatentAttentionOptions } from './multiHeadLatentAttention.js';
export { RMSNorm, type RMSNormOptions } from './rmsNorm.js';
export { S4D, type S4DOptions } from './s4d.js';
export { S5, type S5Options } from './s5.js';
export type { ParameterGroups, SsmLearningRate } from './s5Groups.js';
export { type LayerHash, ScatterbrainAttention, type ScatterbrainAttentionOptions } from './scatterbrainAttention.js';
export {
  type ForwardOptions,
  type LayerArgs,
  type LayerOutput,
  type LayerState,
  SeqLayer,
  type StateSpec,
  type WeightInit,
  type WeightSpec,
} from './seqLayer.js';
export { ShortConvolution, type ShortConvolutionOptions } from './shortConvolution.js';
export { SoftmaxAttention, type SoftmaxAttentionOptions } from './softmaxAttention.js';
export { SwiGLU, type SwiGLUOptions } from './swiGLU.js';
export { TokenEmbedding, type TokenEmbeddingOptions } from './tokenEmbedding.js';
