/** The parts of a decoder and the published names of its weights. Nothing is allocated until a part is built. */
import { LowerBounds, type MLGRU, RMSNorm, type SeqLayer, TokenEmbedding, type WeightSpec } from '../layers/index.js';
import { matrix, withNorms } from '../layers/weightSpecs.js';
import type { ModelConfig } from './config.js';
import { createMixer, createMlp } from './registry.js';
import { type ModelParts, specsOf } from './trainableModel.js';

/**
 * `h = x + mixer(attnNorm(x)); y = h + mlp(mlpNorm(h))`, the second half only where there is an mlp. After-norm blocks have
 * `h = attnNorm(x + mixer(x))` and so on.
 */
export interface Block {
  attnNorm: SeqLayer;
  mixer: SeqLayer;
  mlpNorm?: SeqLayer;
  mlp?: SeqLayer;
  /** Where the norms stand; default `pre`. */
  normPosition?: 'pre' | 'post';
  /** Share of what each half adds that training drops, tied along time; default 0. */
  dropout?: number;
  /** What its mixer shares with those of other blocks. */
  bounds?: LowerBounds;
}

/** The layers of a block with the names they have in checkpoints, in the order the data flow. */
export function namedLayersOf({ attnNorm, mixer, mlpNorm, mlp }: Block): [name: string, layer: SeqLayer][] {
  const all: [string, SeqLayer | undefined][] = [
    ['attn_norm', attnNorm],
    ['attn', mixer],
    ['mlp_norm', mlpNorm],
    ['mlp', mlp],
  ];
  return all.filter((entry): entry is [string, SeqLayer] => entry[1] !== undefined);
}

/** Every layer with weights that the block reads, shared ones too. */
export const layersOf = (block: Block): SeqLayer[] => [
  ...namedLayersOf(block).map(([, layer]) => layer),
  ...(block.bounds ? [block.bounds] : []),
];

/** Embedding, blocks and final norm; the head is a matrix [vocabSize, hiddenSize] beside them, or the embedding table. */
export interface Decoder {
  embeddings: TokenEmbedding;
  blocks: Block[];
  norm: RMSNorm;
  /** Of the mixers `mlgru`. */
  bounds?: LowerBounds;
}

/** Weight of the output projection of a model that does not share its embedding table. */
export const HEAD = 'lm_head.weight';
/** Scale of the norm of a ternary output projection. */
export const HEAD_NORM = 'lm_head.norm.weight';
/** The table of lower bounds of the mixers `mlgru`. */
export const BOUNDS = 'model.lower_bounds';
/** The embedding table. */
export const TABLE = 'model.embeddings.weight';

/** The layers a config describes. */
export function createDecoder(config: ModelConfig): Decoder {
  const { hiddenSize, vocabSize, numLayers, normEps } = config;
  const norm = () => new RMSNorm({ hiddenSize, eps: normEps });
  const bounds = createBounds(config);
  const block = (layer: number): Block => {
    const mixer = createMixer(config, layer);
    const parts = { attnNorm: norm(), mixer, mlpNorm: norm(), mlp: createMlp(config, layer) };
    if (!bounds || !hasBound(config, layer)) return parts;
    (mixer as MLGRU).share(bounds);
    return { ...parts, bounds };
  };
  return {
    embeddings: new TokenEmbedding({ hiddenSize, vocabSize }),
    blocks: Array.from({ length: numLayers }, (_, layer) => block(layer)),
    norm: norm(),
    bounds,
  };
}

/** A table of all layers of the model, as published, where a mixer `mlgru` has a lower bound. */
function createBounds(config: ModelConfig): LowerBounds | undefined {
  const { mixers, hiddenSize, numLayers } = config;
  const bounded = mixers.find((_, layer) => hasBound(config, layer));
  if (bounded?.type !== 'mlgru') return undefined;
  return new LowerBounds({ hiddenSize: hiddenSize * bounded.expandRatio, numLayers });
}

/** The first layer of a model is free. */
function hasBound({ mixers }: ModelConfig, layer: number): boolean {
  const mixer = mixers[layer];
  return mixer.type === 'mlgru' && mixer.useLowerBound && layer > 0;
}

/** Every layer with the prefix of its weights' names, in the order the data flow. */
export function namedLayers({ embeddings, blocks, norm, bounds }: Decoder): [prefix: string, layer: SeqLayer][] {
  const shared: [string, SeqLayer][] = bounds ? [['model', bounds]] : [];
  return [['model.embeddings', embeddings], ...shared, ...namedBlocks(blocks), ['model.norm', norm]];
}

/** The layers of all blocks with their prefixes. */
export function namedBlocks(blocks: readonly Block[]): [prefix: string, layer: SeqLayer][] {
  return blocks.flatMap((block, i) =>
    namedLayersOf(block).map(([name, layer]): [string, SeqLayer] => [`model.layers.${i}.${name}`, layer]),
  );
}

/** Every part of the model with weights. */
export function partsOf(config: ModelConfig, decoder: Decoder): ModelParts {
  const { tieEmbeddings, vocabSize, hiddenSize, linear = 'dense' } = config;
  const loose: ModelParts['loose'] = tieEmbeddings ? {} : withNorms(linear, { [HEAD]: matrix(vocabSize, hiddenSize) });
  return { layers: namedLayers(decoder), loose };
}

/** What every weight of the model is, by its published name. */
export const namedSpecs = (config: ModelConfig, decoder = createDecoder(config)): Map<string, WeightSpec> =>
  specsOf(partsOf(config, decoder));
