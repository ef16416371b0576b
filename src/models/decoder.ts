/** The parts of a decoder and the published names of its weights. Nothing is allocated until a part is built. */
import { RMSNorm, type SeqLayer, TokenEmbedding, type WeightSpec } from '../layers/index.js';
import { matrix } from '../layers/weightSpecs.js';
import type { ModelConfig } from './config.js';
import { createMixer, createMlp } from './registry.js';

/** `h = x + mixer(attnNorm(x)); y = h + mlp(mlpNorm(h))` */
export interface Block {
  attnNorm: RMSNorm;
  mixer: SeqLayer;
  mlpNorm: RMSNorm;
  mlp: SeqLayer;
}

/** Embedding, blocks and final norm; the head is a matrix [vocabSize, hiddenSize] beside them, or the embedding table. */
export interface Decoder {
  embeddings: TokenEmbedding;
  blocks: Block[];
  norm: RMSNorm;
}

/** Weight of the output projection of a model that does not share its embedding table. */
export const HEAD = 'lm_head.weight';
/** The embedding table. */
export const TABLE = 'model.embeddings.weight';

/** The layers a config describes. */
export function createDecoder(config: ModelConfig): Decoder {
  const { hiddenSize, vocabSize, numLayers, normEps } = config;
  const norm = () => new RMSNorm({ hiddenSize, eps: normEps });
  const block = (layer: number): Block => ({
    attnNorm: norm(),
    mixer: createMixer(config, layer),
    mlpNorm: norm(),
    mlp: createMlp(config, layer),
  });
  return {
    embeddings: new TokenEmbedding({ hiddenSize, vocabSize }),
    blocks: Array.from({ length: numLayers }, (_, layer) => block(layer)),
    norm: norm(),
  };
}

/** Every layer with the prefix of its weights' names, in the order the data flow. */
export function namedLayers({ embeddings, blocks, norm }: Decoder): [prefix: string, layer: SeqLayer][] {
  const inner = blocks.flatMap(({ attnNorm, mixer, mlpNorm, mlp }, i): [string, SeqLayer][] => [
    [`model.layers.${i}.attn_norm`, attnNorm],
    [`model.layers.${i}.attn`, mixer],
    [`model.layers.${i}.mlp_norm`, mlpNorm],
    [`model.layers.${i}.mlp`, mlp],
  ]);
  return [['model.embeddings', embeddings], ...inner, ['model.norm', norm]];
}

/** What every weight of the model is, by its published name. */
export function namedSpecs(config: ModelConfig, decoder = createDecoder(config)): Map<string, WeightSpec> {
  const specs = namedLayers(decoder).flatMap(([prefix, layer]) =>
    Object.entries(layer.weightSpecs()).map(([name, spec]) => [`${prefix}.${name}`, spec] as const),
  );
  const head = config.tieEmbeddings ? [] : [[HEAD, matrix(config.vocabSize, config.hiddenSize)] as const];
  return new Map([...specs, ...head]);
}
