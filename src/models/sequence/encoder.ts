/** The parts of a model of whole sequences and the names of its weights. Nothing is allocated until a part is built. */
import {
  BatchNorm,
  InputProjection,
  LayerNorm,
  RMSNorm,
  type SeqLayer,
  SwiGLU,
  TokenEmbedding,
} from '../../layers/index.js';
import { bias, matrix, zeros } from '../../layers/weightSpecs.js';
import { type Block, namedBlocks } from '../decoder.js';
import { createMixer } from '../registry.js';
import type { ModelParts } from '../trainableModel.js';
import type { EncoderConfig } from './config.js';

/** Way in, blocks, and the norm after them; pooling and head stand beside them. */
export interface Encoder {
  input: SeqLayer;
  blocks: Block[];
  norm?: SeqLayer;
}

/** The output projection [outputs, hiddenSize]. */
export const HEAD_WEIGHT = 'head.weight';
export const HEAD_BIAS = 'head.bias';

/** The layers a config describes. */
export function createEncoder(config: EncoderConfig): Encoder {
  const { hiddenSize, inputSize, vocabSize, numLayers, mlp, normPosition, dropout } = config;
  const block = (layer: number): Block => ({
    attnNorm: createNorm(config),
    mixer: createMixer(config, layer),
    ...(mlp && { mlpNorm: createNorm(config), mlp: new SwiGLU({ hiddenSize, ...mlp }) }),
    ...{ normPosition, dropout },
  });
  return {
    input:
      vocabSize === undefined
        ? new InputProjection({ hiddenSize, inputSize })
        : new TokenEmbedding({ hiddenSize, vocabSize }),
    blocks: Array.from({ length: numLayers }, (_, layer) => block(layer)),
    ...(config.finalNorm && { norm: createNorm(config) }),
  };
}

function createNorm({ norm, hiddenSize, normEps: eps, normMomentum: momentum }: EncoderConfig): SeqLayer {
  if (norm === 'batch') return new BatchNorm({ hiddenSize, eps, momentum });
  return norm === 'layer' ? new LayerNorm({ hiddenSize, eps }) : new RMSNorm({ hiddenSize, eps });
}

/** Every part with weights, for a head of so many outputs. */
export function encoderParts(
  { input, blocks, norm }: Encoder,
  { hiddenSize, vocabSize }: EncoderConfig,
  outputs: number,
): ModelParts {
  const way = vocabSize === undefined ? 'model.input_proj' : 'model.embeddings';
  const last: [string, SeqLayer][] = norm ? [['model.norm', norm]] : [];
  return {
    layers: [[way, input], ...namedBlocks(blocks), ...last],
    loose: {
      [HEAD_WEIGHT]: {
        ...matrix(outputs, hiddenSize),
        init: (rng, size) => rng.normalArray(size, hiddenSize ** -0.5),
      },
      [HEAD_BIAS]: { ...bias(outputs, hiddenSize), init: zeros },
    },
  };
}
