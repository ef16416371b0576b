/** What a config amounts to, without allocating a weight: shapes, parameters, bytes of state. */
import * as tf from '@tensorflow/tfjs';
import { packedRowBytes, type TernaryEncoding } from '../formats/ternary.js';
import type { AnyModelConfig } from './anyConfig.js';
import { type ModelConfig, type ModelConfigInput, resolveModelConfig } from './config.js';
import { createDecoder, namedSpecs, TABLE } from './decoder.js';
import type { MixerType } from './mixers/index.js';
import { hasExperts } from './mlps/moe.js';
import { ternaryShapes } from './packed.js';
import { table } from './table.js';

/** Bytes a stream's state takes. */
export interface StateDescription {
  /** Before the first token: all there is, for mixers of constant state. */
  constant: number;
  /** Added by each token while caches grow (those with a window stop when it is full). */
  perToken: number;
}

/** Bytes that each token would add if all layers were like the first `mla` layer. */
export interface CacheComparison {
  /** With its cache of latents. */
  latent: number;
  /** With keys and values of every head in the cache, as plain softmax attention has. */
  heads: number;
}

/** Bytes by the dtype of the weights that are not packed. */
export type BytesByDtype = Record<'float32' | 'float16', number>;

export interface LayerDescription {
  mixer: MixerType;
  mlp: 'swiglu' | 'bit_glu' | 'moe';
  /** Parameters of the mixer, the channel mixer and the block's two norms. */
  parameters: { mixer: number; mlp: number; norms: number };
  /** Those that one token uses: of the experts, the chosen and the shared ones. */
  active: number;
  state: StateDescription;
}

export interface ModelDescription {
  config: ModelConfig;
  /** Parameters by part; a tied head is 0. */
  parameters: { embeddings: number; mixers: number; mlps: number; norms: number; head: number; total: number };
  /**
   * Parameters that one token is multiplied with: `layers` those of the blocks and norms, `total` with the output projection. The table
   * of the embeddings counts only where it is that.
   */
  active: { layers: number; total: number };
  layers: LayerDescription[];
  /** Of all weights, not packed. */
  bytes: BytesByDtype;
  /** Where weights are ternary: how many, and their bytes in each form they can be kept in. */
  ternary?: {
    parameters: number;
    bytes: Record<'float32' | TernaryEncoding, number>;
    /** Bytes of all weights with the ternary ones packed, by the dtype of the others. */
    packedModel: Record<TernaryEncoding, BytesByDtype>;
  };
  /** Every weight, in the order the data flow. */
  weights: { name: string; shape: number[]; parameters: number; active: number }[];
  /** State of one stream (batch 1), all layers together; `at` gives its bytes after so many tokens. */
  state: StateDescription & { at: { position: number; bytes: number }[]; ifAll?: CacheComparison };
}

/**
 * Describes the model of a config.
 * @param positions where to give the bytes of the state; default 1,024, 32,768 and 1,048,576 tokens
 * @throws ConfigError that lists everything wrong with the config
 */
export function describe(
  input: ModelConfigInput | AnyModelConfig = {},
  positions: readonly number[] = [2 ** 10, 2 ** 15, 2 ** 20],
): ModelDescription {
  const config = resolveModelConfig(input);
  const decoder = createDecoder(config);
  const weights = [...namedSpecs(config, decoder)].map(([name, { shape, active = 1 }]) => {
    const parameters = tf.util.sizeFromShape(shape);
    return { name, shape, parameters, active: Math.round(active * parameters) };
  });
  const mixers = decoder.blocks.map(({ mixer }) => mixer);
  const bytesAt = (position: number) => total(mixers.map((mixer) => mixer.stateSize(1, position)));
  return {
    config,
    parameters: countParts(weights),
    active: countActive(config, weights),
    layers: mixers.map((mixer, i) => ({
      mixer: config.mixers[i].type,
      mlp: hasExperts(config.mlp.moe, i) ? 'moe' : (config.mlp.type ?? 'swiglu'),
      parameters: countLayer(weights, i),
      active: total(weights.filter(({ name }) => name.startsWith(`model.layers.${i}.`)).map(({ active }) => active)),
      state: growth((position) => mixer.stateSize(1, position)),
    })),
    bytes: bytesOf(total(weights.map(({ parameters }) => parameters))),
    ternary: describeTernary(config, total(weights.map(({ parameters }) => parameters))),
    weights,
    state: {
      ...growth(bytesAt),
      at: positions.map((position) => ({ position, bytes: bytesAt(position) })),
      ifAll: ifAll(config),
    },
  };
}

/** Each matrix takes whole bytes per row and 4 for its scale. */
function describeTernary(config: ModelConfig, all: number): ModelDescription['ternary'] {
  const shapes = [...ternaryShapes(config).values()];
  if (shapes.length === 0) return undefined;
  const parameters = total(shapes.map(([rows, columns]) => rows * columns));
  const packed = (encoding: TernaryEncoding) =>
    total(shapes.map(([rows, columns]) => rows * packedRowBytes(columns, { encoding }) + 4));
  const bytes = { float32: 4 * parameters, '2bit': packed('2bit'), base3: packed('base3') };
  const model = (encoding: TernaryEncoding) => bytesOf(all - parameters, bytes[encoding]);
  return { parameters, bytes, packedModel: { '2bit': model('2bit'), base3: model('base3') } };
}

const bytesOf = (parameters: number, packed = 0): BytesByDtype => ({
  float32: packed + 4 * parameters,
  float16: packed + 2 * parameters,
});

type WeightDescription = ModelDescription['weights'][number];

function countParts(weights: WeightDescription[]): ModelDescription['parameters'] {
  const count = (pattern: RegExp) => countMatching(weights, pattern);
  return {
    embeddings: count(/^model\.embeddings\./),
    mixers: count(/^model\.(layers\.\d+\.attn\.|lower_bounds$)/),
    mlps: count(/^model\.layers\.\d+\.mlp\./),
    norms: count(/^model\.(layers\.\d+\.(attn|mlp)_)?norm\./),
    head: count(/^lm_head\./),
    total: count(/^/),
  };
}

function countActive({ tieEmbeddings }: ModelConfig, weights: WeightDescription[]): ModelDescription['active'] {
  const ofHead = (name: string) => (tieEmbeddings ? name === TABLE : name.startsWith('lm_head.'));
  const layers = total(weights.filter(({ name }) => name !== TABLE && !ofHead(name)).map(({ active }) => active));
  return { layers, total: layers + total(weights.filter(({ name }) => ofHead(name)).map(({ active }) => active)) };
}

function ifAll({ mixers, numLayers }: ModelConfig): CacheComparison | undefined {
  const mla = mixers.find((mixer) => mixer.type === 'mla');
  if (!mla) return undefined;
  const { kvLoraRank, qkNopeHeadDim, qkRopeHeadDim, vHeadDim, numHeads } = mla;
  const bytes = 4 * numLayers;
  return {
    latent: bytes * (kvLoraRank + qkRopeHeadDim),
    heads: bytes * numHeads * (qkNopeHeadDim + qkRopeHeadDim + vHeadDim),
  };
}

function countLayer(weights: WeightDescription[], layer: number): LayerDescription['parameters'] {
  const count = (part: string) => countMatching(weights, new RegExp(`^model\\.layers\\.${layer}\\.${part}\\.`));
  return { mixer: count('attn'), mlp: count('mlp'), norms: count('(attn|mlp)_norm') };
}

const countMatching = (weights: WeightDescription[], pattern: RegExp) =>
  total(weights.filter(({ name }) => pattern.test(name)).map(({ parameters }) => parameters));

const growth = (bytesAt: (position: number) => number): StateDescription => ({
  constant: bytesAt(0),
  perToken: bytesAt(1) - bytesAt(0),
});

const total = (numbers: number[]) => numbers.reduce((sum, n) => sum + n, 0);

/** The description as a table for people. Layers that are alike are shown once. */
export function formatDescription(description: ModelDescription): string {
  const { config, parameters, active, layers, bytes, ternary, weights, state } = description;
  const { hiddenSize, numLayers, vocabSize, tieEmbeddings } = config;
  const { total: all, ...parts } = parameters;
  const groups = alike(layers);
  const kinds = layers.map((layer) => JSON.stringify(layer));
  const shown = new Set(kinds.map((kind) => kinds.indexOf(kind)));
  const listed = weights.filter(({ name }) => shown.has(Number(/^model\.layers\.(\d+)\./.exec(name)?.[1] ?? 0)));
  return [
    `${config.modelType}: ${n(all)} parameters; hidden size ${n(hiddenSize)}, ${n(numLayers)} layers, vocabulary ${n(vocabSize)}`,
    `active in a token: ${n(active.total)} parameters, ${n(active.layers)} without the head`,
    ...(ternary ? [ternaryLine(config, ternary)] : []),
    '',
    ...table(byteRows(bytes, ternary)),
    '',
    ...table([
      ['part', 'parameters', 'share'],
      ...Object.entries(parts).map(([part, count]) =>
        part === 'head' && tieEmbeddings
          ? [part, 'tied', '']
          : [part, n(count), `${((100 * count) / all).toFixed(1)} %`],
      ),
    ]),
    '',
    ...table([
      ['layers', 'mixer', 'mlp', 'mixer params', 'mlp params', 'active', 'state bytes', '+ per token'],
      ...groups.map(([first, last]) => {
        const { mixer, mlp, parameters: p, active: used, state: s } = layers[first];
        const range = first === last ? `${first}` : `${first}-${last}`;
        return [range, mixer, mlp, n(p.mixer), n(p.mlp), n(used), n(s.constant), n(s.perToken)];
      }),
    ]),
    '',
    ...table([
      ['weight', 'shape', 'parameters'],
      ...listed.map(({ name, shape, parameters: count }) => [name, `[${shape.join(', ')}]`, n(count)]),
    ]),
    '',
    `state of one stream: ${n(state.constant)} bytes, ${n(state.perToken)} more per token`,
    ...table(state.at.map(({ position, bytes }) => [`  at ${n(position)} tokens`, `${n(bytes)} bytes`])),
    ...(state.ifAll ? compared(state.perToken, state.ifAll) : []),
  ].join('\n');
}

function byteRows(bytes: BytesByDtype, ternary: ModelDescription['ternary']): string[][] {
  const row = (what: string, { float32, float16 }: BytesByDtype) => [what, n(float32), n(float16)];
  return [
    ['bytes of weights', 'float32', '16 bits'],
    row('not packed', bytes),
    ...(ternary
      ? [row('ternary in 2 bits', ternary.packedModel['2bit']), row('ternary in base 3', ternary.packedModel.base3)]
      : []),
  ];
}

function ternaryLine({ packed }: ModelConfig, { parameters, bytes }: NonNullable<ModelDescription['ternary']>): string {
  const forms = `${n(bytes.float32)} bytes as float32, ${n(bytes['2bit'])} in 2 bits each, ${n(bytes.base3)} in base 3`;
  return `ternary: ${n(parameters)} parameters; ${forms}${packed ? `; packed here (${packed})` : ''}`;
}

function compared(perToken: number, { latent, heads }: CacheComparison): string[] {
  const share = (of: number) => `${n(of)} bytes per token, of which this is ${((100 * perToken) / of).toFixed(1)} %`;
  return [
    `if all layers were mla: ${share(latent)}`,
    `if all layers cached keys and values of every head: ${share(heads)}`,
  ];
}

/** Runs of neighbouring layers with the same description, as [first, last]. */
function alike(layers: LayerDescription[]): [number, number][] {
  const runs: [number, number][] = [];
  for (const [i, layer] of layers.entries()) {
    const run = runs.at(-1);
    if (run && JSON.stringify(layers[run[0]]) === JSON.stringify(layer)) run[1] = i;
    else runs.push([i, i]);
  }
  return runs;
}

const n = (x: number) => x.toLocaleString('en');
