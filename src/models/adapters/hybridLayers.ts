/** What published hybrids call the options of their layers, and what an absent one means. */
import type { MixerConfig } from '../mixers/index.js';

/** A published field: the option of ours that it is, and the value of an absent one. */
export interface PublishedField {
  option: string;
  absent: unknown;
}

/** A type of layer in `hybrid_override_pattern`. */
export interface HybridLayer {
  mixer: MixerConfig['type'];
  /** Where the layer's tensors stand: `model.layers.0.<folder>.q_proj.weight`. */
  folder: string;
  /** Name of the layer's own part of the config; none for plain attention. */
  part?: string;
  fields: Record<string, PublishedField>;
  /** Fields of the part whose other values change the model in ways we do not have; the first value is that of an absent one. */
  supported: Record<string, readonly unknown[]>;
}

const field = (option: string, absent: unknown): PublishedField => ({ option, absent });

const gka: HybridLayer = {
  mixer: 'gka',
  folder: 'gka',
  part: 'gka_config',
  fields: {
    num_iter: field('numIterations', 30),
    ridge_strength: field('ridgeRatio', 0.02),
    bp_lambda: field('lambdaGradient', true),
    use_alpha_connection: field('useAlphaConnection', true),
    use_v_conv: field('useVConv', true),
    use_forgetting_gate: field('useForgettingGate', true),
    use_forgetting_gate_kk: field('useForgettingGateKk', true),
    use_beta_gate: field('useBetaGate', true),
    gla_rescale: field('useScale', true),
    use_gate: field('useOutputGate', true),
    conv_size: field('convSize', 4),
    norm_eps: field('normEps', 1e-6),
    chunk_size: field('chunkSize', 64),
    kv_proj_rank: field('kvProjRank', null),
    kv_learnable_residual: field('kvLearnableResidual', false),
  },
  supported: { solver_type: ['chebyshev'] },
};

const gdn: HybridLayer = {
  mixer: 'gated_delta_net',
  folder: 'gdn',
  part: 'gdn_config',
  fields: {
    use_gate: field('useOutputGate', true),
    use_short_conv: field('useShortConv', true),
    allow_neg_eigval: field('allowNegEigval', false),
    conv_size: field('convSize', 4),
    conv_bias: field('convBias', false),
    norm_eps: field('normEps', 1e-5),
  },
  supported: { kv_proj_rank: [null] },
};

const window: HybridLayer = {
  mixer: 'softmax_attention',
  folder: 'swa',
  part: 'swa_config',
  fields: { window_size: field('window', undefined) },
  supported: {},
};

const attention: HybridLayer = { mixer: 'softmax_attention', folder: 'self_attn', fields: {}, supported: {} };

/** The types of layers that we have, by their names in the pattern. */
export const hybridLayers: Record<string, HybridLayer> = { '*': attention, GKA: gka, GDN: gdn, SWA: window };

/** Why the others cannot be read. */
export const otherLayers: Record<string, string> = {
  M2: 'Mamba-2, a layer we do not have',
  BMF: "B'MOJO-F, a layer we do not have",
};

/** The type that a mixer of ours is there; undefined when there is none. */
export function layerTypeOf(mixer: MixerConfig): string | undefined {
  if (mixer.type === 'softmax_attention') return mixer.window === null ? '*' : 'SWA';
  return Object.keys(hybridLayers).find((type) => hybridLayers[type].mixer === mixer.type);
}
