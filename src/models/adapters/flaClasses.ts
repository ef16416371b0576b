/** What the published model classes of flash-linear-attention call their options, and what an absent one means. */
import type { MixerConfig, MixerType } from '../mixers/index.js';

/** One published class; its layers are mixers of one type. */
export interface FlaClass {
  /** `model_type` of the published config. */
  modelType: string;
  architecture: string;
  mixer: MixerType;
  /** Published fields of the mixer, the option each is, and the value of an absent one. */
  fields: Record<string, { option: string; absent: unknown }>;
  /** Layers of a config that does not say. */
  numLayers: number;
  /** Fields whose other values change the model in ways we do not have; the first value is that of an absent one. */
  supported: Record<string, readonly unknown[]>;
  /** Options of ours that the class has no field for, at the only value it can mean. */
  fixed: Record<string, unknown>;
}

/** @param absent what a field that is absent or null means */
const field = (option: string, absent: unknown) => ({ option, absent });

const convolution = (absent: boolean) => ({
  use_short_conv: field('useShortConv', absent),
  conv_size: field('convSize', 4),
});

const heads = (numHeads: number, headDim: number, expandV: number) => ({
  num_heads: field('numHeads', numHeads),
  num_v_heads: field('numVHeads', null),
  head_dim: field('headDim', headDim),
  expand_v: field('expandV', expandV),
});

const gla: FlaClass = {
  modelType: 'gla',
  architecture: 'GLAForCausalLM',
  mixer: 'gla',
  fields: {
    num_heads: field('numHeads', 4),
    num_kv_heads: field('numKvHeads', null),
    expand_k: field('expandK', 0.5),
    expand_v: field('expandV', 1),
    feature_map: field('featureMap', null),
    ...convolution(false),
    use_output_gate: field('useOutputGate', true),
    clamp_min: field('clampMin', null),
  },
  numLayers: 24,
  supported: { feature_map: [null, 'relu'], elementwise_affine: [true], use_gk: [true], use_gv: [false] },
  fixed: { gateFn: 'silu', convBias: false, gateLogitNormalizer: 16, gateLowRankDim: 16 },
};

const deltaNet: FlaClass = {
  modelType: 'delta_net',
  architecture: 'DeltaNetForCausalLM',
  mixer: 'delta_net',
  fields: {
    num_heads: field('numHeads', 16),
    expand_k: field('expandK', 1),
    expand_v: field('expandV', 1),
    ...convolution(true),
    use_gate: field('useOutputGate', false),
    allow_neg_eigval: field('allowNegEigval', false),
  },
  numLayers: 24,
  supported: { use_beta: [true], use_output_norm: [true], qk_norm: ['l2'], qk_activation: ['silu'] },
  fixed: { convBias: false },
};

const gatedDeltaNet: FlaClass = {
  modelType: 'gated_deltanet',
  architecture: 'GatedDeltaNetForCausalLM',
  mixer: 'gated_delta_net',
  fields: {
    ...heads(6, 256, 2),
    ...convolution(true),
    use_gate: field('useOutputGate', true),
    allow_neg_eigval: field('allowNegEigval', false),
  },
  numLayers: 21,
  supported: {},
  fixed: { convBias: false, normEps: undefined },
};

const kda: FlaClass = {
  modelType: 'kda',
  architecture: 'KDAForCausalLM',
  mixer: 'kda',
  fields: {
    ...heads(16, 128, 1),
    ...convolution(true),
    allow_neg_eigval: field('allowNegEigval', false),
    safe_gate: field('safeGate', false),
    lower_bound: field('lowerBound', null),
  },
  numLayers: 24,
  supported: {},
  fixed: { convBias: false, gateBias: true },
};

export const flaClasses: readonly FlaClass[] = [gla, deltaNet, gatedDeltaNet, kda];

/** Options that equal another one, as which a published config leaves them null. */
export const impliedOptions: Record<string, string> = { numKvHeads: 'numHeads', numVHeads: 'numHeads' };

/** An option of a mixer by its name. */
export const optionOf = (mixer: MixerConfig, option: string): unknown => (mixer as Record<string, unknown>)[option];
