/** Which layer stands behind each mixer type of a model config. A new mixer adds one line here. */
import {
  GatedLinearAttention,
  KimiDeltaAttention,
  MultiHeadLatentAttention,
  type SeqLayer,
  SoftmaxAttention,
} from '../layers/index.js';
import type { ModelConfig } from './config.js';
import type { MixerConfigOf, MixerType } from './mixers/index.js';

type Build<M> = (mixer: Omit<M, 'type'>, model: { hiddenSize: number; normEps: number }) => SeqLayer;

const builders: { [T in MixerType]: Build<MixerConfigOf<T>> } = {
  gla: ({ gateFn, ...m }, model) =>
    new GatedLinearAttention({ ...m, ...model, gateFn: gateFn === 'silu' ? 'swish' : gateFn }),
  kda: (m, model) => new KimiDeltaAttention({ ...m, ...model }),
  mla: (m, { hiddenSize }) => new MultiHeadLatentAttention({ ...m, hiddenSize }),
  softmax_attention: (m, { hiddenSize }) => new SoftmaxAttention({ ...m, hiddenSize }),
};

/** The mixing layer that `config.mixers[layer]` describes, not yet built: no weights are allocated. */
export function createMixer({ mixers, hiddenSize, normEps }: ModelConfig, layer: number): SeqLayer {
  const { type, ...mixer } = mixers[layer];
  return (builders[type] as Build<typeof mixer>)(mixer, { hiddenSize, normEps });
}
