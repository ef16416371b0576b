/** What a config amounts to, without allocating a weight: shapes, parameters, bytes of state. */
import * as tf from '@tensorflow/tfjs';
import { type ModelConfig, type ModelConfigInput, resolveModelConfig } from './config.js';
import { createDecoder, namedSpecs } from './decoder.js';
import type { MixerType } from './mixers/index.js';

/** Bytes a stream's state takes. */
export interface StateDescription {
  /** Before the first token: all there is, for mixers of constant state. */
  constant: number;
  /** Added by each token while caches grow (those with a window stop when it is full). */
  perToken: number;
}

export interface LayerDescription {
  mixer: MixerType;
  /** Parameters of the mixer, the channel mixer and the block's two norms. */
  parameters: { mixer: number; mlp: number; norms: number };
  state: StateDescription;
}

export interface ModelDescription {
  config: ModelConfig;
  /** Parameters by part; a tied head is 0. */
  parameters: { embeddings: number; mixers: number; mlps: number; norms: number; head: number; total: number };
  layers: LayerDescription[];
  /** Every weight, in the order the data flow. */
  weights: { name: string; shape: number[]; parameters: number }[];
  /** State of one stream (batch 1), all layers together; `at` gives its bytes after so many tokens. */
  state: StateDescription & { at: { position: number; bytes: number }[] };
}

/**
 * Describes the model of a config.
 * @param positions where to give the bytes of the state; default 1,024, 32,768 and 1,048,576 tokens
 * @throws ConfigError that lists everything wrong with the config
 */
export function describe(
  input: ModelConfigInput | ModelConfig = {},
  positions: readonly number[] = [2 ** 10, 2 ** 15, 2 ** 20],
): ModelDescription {
  const config = resolveModelConfig(input);
  const decoder = createDecoder(config);
  const weights = [...namedSpecs(config, decoder)].map(([name, { shape }]) => ({
    name,
    shape,
    parameters: tf.util.sizeFromShape(shape),
  }));
  const mixers = decoder.blocks.map(({ mixer }) => mixer);
  const bytesAt = (position: number) => total(mixers.map((mixer) => mixer.stateSize(1, position)));
  return {
    config,
    parameters: countParts(weights),
    layers: mixers.map((mixer, i) => ({
      mixer: config.mixers[i].type,
      parameters: countLayer(weights, i),
      state: growth((position) => mixer.stateSize(1, position)),
    })),
    weights,
    state: { ...growth(bytesAt), at: positions.map((position) => ({ position, bytes: bytesAt(position) })) },
  };
}

type WeightDescription = ModelDescription['weights'][number];

function countParts(weights: WeightDescription[]): ModelDescription['parameters'] {
  const count = (pattern: RegExp) => countMatching(weights, pattern);
  return {
    embeddings: count(/^model\.embeddings\./),
    mixers: count(/^model\.layers\.\d+\.attn\./),
    mlps: count(/^model\.layers\.\d+\.mlp\./),
    norms: count(/^model\.(layers\.\d+\.(attn|mlp)_)?norm\./),
    head: count(/^lm_head\./),
    total: count(/^/),
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
export function formatDescription({ config, parameters, layers, weights, state }: ModelDescription): string {
  const { hiddenSize, numLayers, vocabSize, tieEmbeddings } = config;
  const { total: all, ...parts } = parameters;
  const groups = alike(layers);
  const kinds = layers.map((layer) => JSON.stringify(layer));
  const shown = new Set(kinds.map((kind) => kinds.indexOf(kind)));
  const listed = weights.filter(({ name }) => shown.has(Number(/^model\.layers\.(\d+)\./.exec(name)?.[1] ?? 0)));
  return [
    `${config.modelType}: ${n(all)} parameters; hidden size ${n(hiddenSize)}, ${n(numLayers)} layers, vocabulary ${n(vocabSize)}`,
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
      ['layers', 'mixer', 'mixer params', 'mlp params', 'state bytes', '+ per token'],
      ...groups.map(([first, last]) => {
        const { mixer, parameters: p, state: s } = layers[first];
        const range = first === last ? `${first}` : `${first}-${last}`;
        return [range, mixer, n(p.mixer), n(p.mlp), n(s.constant), n(s.perToken)];
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
  ].join('\n');
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

/** Columns padded to the width of their widest cell; all but the first two words of a row are numbers and go to the right. */
function table(rows: string[][]): string[] {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column].length)));
  const isNumber = (column: number) =>
    rows.slice(1).every((row) => /^[\d,.]+( %| bytes)?$|^tied$|^$/.test(row[column]));
  const right = widths.map((_, column) => isNumber(column));
  return rows.map((row) =>
    row
      .map((cell, i) => (right[i] ? cell.padStart(widths[i]) : cell.padEnd(widths[i])))
      .join('  ')
      .trimEnd(),
  );
}

const n = (x: number) => x.toLocaleString('en');
