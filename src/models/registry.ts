/** Which layer stands behind each mixer type of a model config, where a new mixer adds one line, and which is the channel mixer. */
import {
  BitGLU,
  DeltaNet,
  FlashBiasAttention,
  GatedDeltaNet,
  GatedKalmaNet,
  GatedLinearAttention,
  KimiDeltaAttention,
  MixtureOfExperts,
  MLGRU,
  MultiHeadLatentAttention,
  S4D,
  S5,
  ScatterbrainAttention,
  type SeqLayer,
  SoftmaxAttention,
  SwiGLU,
} from '../layers/index.js';
import type { ModelConfig } from './config.js';
import type { MixerConfigOf, MixerType } from './mixers/index.js';
import { hasExperts } from './mlps/moe.js';

type Model = Pick<ModelConfig, 'hiddenSize' | 'normEps' | 'linear'>;

type Build<M> = (mixer: Omit<M, 'type'>, model: Model, layer: number) => SeqLayer;

const builders: { [T in MixerType]: Build<MixerConfigOf<T>> } = {
  delta_net: (m, model) => new DeltaNet({ ...m, ...model }),
  flash_bias_attention: (m, model) => new FlashBiasAttention({ ...m, ...model }),
  gated_delta_net: (m, model) => new GatedDeltaNet({ ...m, ...withOwnEps(m, model) }),
  gka: (m, model) => new GatedKalmaNet({ ...m, ...withOwnEps(m, model) }),
  gla: ({ gateFn, ...m }, model) =>
    new GatedLinearAttention({ ...m, ...model, gateFn: gateFn === 'silu' ? 'swish' : gateFn }),
  kda: (m, model) => new KimiDeltaAttention({ ...m, ...model }),
  mla: (m, { hiddenSize, linear }) => new MultiHeadLatentAttention({ ...m, hiddenSize, linear }),
  mlgru: ({ useLowerBound: _, ...m }, { hiddenSize, normEps }, layerIndex) =>
    new MLGRU({ ...m, hiddenSize, normEps, layerIndex }),
  s5: (m, { hiddenSize }) => new S5({ ...m, hiddenSize }),
  s4d: (m, { hiddenSize }) => new S4D({ ...m, hiddenSize }),
  scatterbrain_attention: (m, { hiddenSize, linear }) => new ScatterbrainAttention({ ...m, hiddenSize, linear }),
  softmax_attention: (m, model) => new SoftmaxAttention({ ...m, ...model }),
};

/** What the model gives a mixer that may have a `normEps` of its own. */
function withOwnEps({ normEps }: { normEps?: number }, model: Model) {
  return { ...model, normEps: normEps ?? model.normEps };
}

/** The mixing layer that `config.mixers[layer]` describes, not yet built: no weights are allocated. */
export function createMixer(
  { mixers, hiddenSize, normEps, linear }: Model & Pick<ModelConfig, 'mixers'>,
  layer: number,
): SeqLayer {
  const { type, ...mixer } = mixers[layer];
  return (builders[type] as Build<typeof mixer>)(mixer, { hiddenSize, normEps, linear }, layer);
}

/** The channel mixer of a layer, not yet built. */
export function createMlp({ mlp, hiddenSize, linear }: ModelConfig, layer: number): SeqLayer {
  const { moe, type, intermediateSize } = mlp;
  if (!hasExperts(moe, layer))
    return type === 'bit_glu'
      ? new BitGLU({ hiddenSize, intermediateSize })
      : new SwiGLU({ hiddenSize, intermediateSize, linear });
  const { firstKDenseReplace: _, moeLayerFreq: _f, ...options } = moe;
  return new MixtureOfExperts({ hiddenSize, ...options });
}
