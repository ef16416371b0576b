/** Which layer stands behind each mixer type of a model config, where a new mixer adds one line, and which is the channel mixer. */
import {
  DeltaNet,
  GatedDeltaNet,
  GatedKalmaNet,
  GatedLinearAttention,
  KimiDeltaAttention,
  MixtureOfExperts,
  MultiHeadLatentAttention,
  S4D,
  S5,
  type SeqLayer,
  SoftmaxAttention,
  SwiGLU,
} from '../layers/index.js';
import type { ModelConfig } from './config.js';
import type { MixerConfigOf, MixerType } from './mixers/index.js';
import { hasExperts } from './mlps/moe.js';

type Build<M> = (mixer: Omit<M, 'type'>, model: { hiddenSize: number; normEps: number }) => SeqLayer;

const builders: { [T in MixerType]: Build<MixerConfigOf<T>> } = {
  delta_net: (m, model) => new DeltaNet({ ...m, ...model }),
  gated_delta_net: (m, model) => new GatedDeltaNet({ ...m, ...withOwnEps(m, model) }),
  gka: (m, model) => new GatedKalmaNet({ ...m, ...withOwnEps(m, model) }),
  gla: ({ gateFn, ...m }, model) =>
    new GatedLinearAttention({ ...m, ...model, gateFn: gateFn === 'silu' ? 'swish' : gateFn }),
  kda: (m, model) => new KimiDeltaAttention({ ...m, ...model }),
  mla: (m, { hiddenSize }) => new MultiHeadLatentAttention({ ...m, hiddenSize }),
  s5: (m, { hiddenSize }) => new S5({ ...m, hiddenSize }),
  s4d: (m, { hiddenSize }) => new S4D({ ...m, hiddenSize }),
  softmax_attention: (m, model) => new SoftmaxAttention({ ...m, ...model }),
};

/** What the model gives a mixer that may have a `normEps` of its own. */
function withOwnEps({ normEps }: { normEps?: number }, model: { hiddenSize: number; normEps: number }) {
  return { ...model, normEps: normEps ?? model.normEps };
}

/** The mixing layer that `config.mixers[layer]` describes, not yet built: no weights are allocated. */
export function createMixer(
  { mixers, hiddenSize, normEps }: Pick<ModelConfig, 'mixers' | 'hiddenSize' | 'normEps'>,
  layer: number,
): SeqLayer {
  const { type, ...mixer } = mixers[layer];
  return (builders[type] as Build<typeof mixer>)(mixer, { hiddenSize, normEps });
}

/** The channel mixer of a layer, not yet built. */
export function createMlp({ mlp: { moe, intermediateSize }, hiddenSize }: ModelConfig, layer: number): SeqLayer {
  if (!hasExperts(moe, layer)) return new SwiGLU({ hiddenSize, intermediateSize });
  const { firstKDenseReplace: _, moeLayerFreq: _f, ...options } = moe;
  return new MixtureOfExperts({ hiddenSize, ...options });
}
