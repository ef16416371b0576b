/** What the config of a classifier or regressor amounts to, without allocating a weight. */
import * as tf from '@tensorflow/tfjs';
import type { MixerType } from '../mixers/index.js';
import { table } from '../table.js';
import { specsOf, takesDecay } from '../trainableModel.js';
import { resolveSequenceConfig, type SequenceConfig } from './config.js';
import { createEncoder, encoderParts } from './encoder.js';

export interface SequenceWeight {
  name: string;
  shape: number[];
  parameters: number;
  /** What moves it: `optimizer`, `frozen`, or `statistics` of the batches. */
  movedBy: 'optimizer' | 'frozen' | 'statistics';
  /** Peak learning rate of its own, where it is lower than the run's. */
  learningRate?: number;
  /** Takes weight decay. */
  decays: boolean;
}

export interface SequenceDescription {
  config: SequenceConfig;
  /** Parameters by part. */
  parameters: { input: number; mixers: number; mlps: number; norms: number; head: number; total: number };
  layers: { mixer: MixerType; parameters: number }[];
  /** Every weight, in the order the data flow. */
  weights: SequenceWeight[];
}

/** @throws ConfigError that lists everything wrong with the config */
export function describeSequence(input: unknown): SequenceDescription {
  const config = resolveSequenceConfig(input);
  const outputs = config.modelType === 'sequence_classifier' ? config.numClasses : config.numTargets;
  const specs = specsOf(encoderParts(createEncoder(config), config, outputs));
  const weights = [...specs].map(([name, spec]): SequenceWeight => {
    const { shape, learningRate, runningRate } = spec;
    const movedBy = runningRate !== undefined ? 'statistics' : learningRate === 0 ? 'frozen' : 'optimizer';
    const decays = movedBy === 'optimizer' && takesDecay(spec);
    const own = learningRate !== undefined && { learningRate };
    return { name, shape, parameters: tf.util.sizeFromShape(shape), movedBy, ...own, decays };
  });
  const count = (pattern: RegExp) =>
    weights.reduce((sum, { name, parameters }) => sum + (pattern.test(name) ? parameters : 0), 0);
  return {
    config,
    parameters: {
      input: count(/^model\.(input_proj|embeddings)\./),
      mixers: count(/^model\.layers\.\d+\.attn\./),
      mlps: count(/^model\.layers\.\d+\.mlp\./),
      norms: count(/^model\.(layers\.\d+\.(attn|mlp)_)?norm\./),
      head: count(/^head\./),
      total: count(/^/),
    },
    layers: config.mixers.map(({ type }, i) => ({
      mixer: type,
      parameters: count(new RegExp(`^model\\.layers\\.${i}\\.`)),
    })),
    weights,
  };
}

/** The description as a table for people. Layers that are alike are shown once. */
export function formatSequenceDescription({ config, parameters, layers, weights }: SequenceDescription): string {
  const { total: all, ...parts } = parameters;
  const input =
    config.inputSize === undefined ? `tokens of ${n(config.vocabSize as number)}` : `${config.inputSize} numbers`;
  const output =
    config.modelType === 'sequence_classifier' ? `${n(config.numClasses)} classes` : `${n(config.numTargets)} numbers`;
  const kinds = layers.map((layer, i) => JSON.stringify([layer, config.mixers[i]]));
  const shown = kinds.map((kind) => kinds.indexOf(kind));
  const isShown = (name: string) => {
    const layer = Number(/^model\.layers\.(\d+)\./.exec(name)?.[1] ?? -1);
    return layer < 0 || shown[layer] === layer;
  };
  return [
    `${config.modelType}: ${n(all)} parameters; hidden size ${n(config.hiddenSize)}, ${n(config.numLayers)} layers, steps of ${input}, ${output} of a sequence`,
    `${config.normPosition}-norm (${config.norm}), dropout ${config.dropout}, pooling ${config.pool}`,
    '',
    ...table([
      ['part', 'parameters', 'share'],
      ...Object.entries(parts).map(([part, count]) => [part, n(count), `${((100 * count) / all).toFixed(1)} %`]),
    ]),
    '',
    ...table([
      ['layers', 'mixer', 'parameters'],
      ...layers.flatMap(({ mixer, parameters: count }, i) => {
        if (shown[i] !== i) return [];
        const same = shown.flatMap((first, j) => (first === i ? [j] : []));
        return [[same.length === 1 ? `${i}` : `${same.join(',')}`, mixer, n(count)]];
      }),
    ]),
    '',
    ...table([
      ['weight', 'shape', 'parameters', 'moved by', 'decay'],
      ...weights.filter(({ name }) => isShown(name)).map(weightRow),
    ]),
  ].join('\n');
}

function weightRow({ name, shape, parameters, movedBy, learningRate, decays }: SequenceWeight): string[] {
  const rate = movedBy === 'optimizer' && learningRate !== undefined ? `, lr at most ${learningRate}` : '';
  return [name, `[${shape.join(', ')}]`, n(parameters), `${movedBy}${rate}`, decays ? 'yes' : 'no'];
}

const n = (x: number) => x.toLocaleString('en');
