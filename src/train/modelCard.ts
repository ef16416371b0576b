/** The card of an exported model: what it is, what it was trained on and how, and what not to expect of it. */
import { type AnyModelConfig, isSequenceConfig } from '../models/index.js';
import { isLabelled } from './data/labelled/schema.js';
import { isTask } from './data/tasks/index.js';
import type { ModelRunInfo } from './openModel.js';

export interface CardFacts {
  /** Name of the model, as `seqmix generate` finds it. */
  name: string;
  config: AnyModelConfig;
  /** Numbers in all weights. */
  parameters: number;
  /** Element type of the file. */
  dtype: string;
  run?: ModelRunInfo;
  step?: number;
  /** Figures of the checkpoint on the evaluation batches of the run: `bestBpb`, `bestLoss`, `bestAccuracy`. */
  metrics?: Record<string, number>;
}

/** A card in Markdown. The sections that only a person can write say so. */
export function modelCard({ name, config, parameters, dtype, run, step, metrics = {} }: CardFacts): string {
  const n = (x: number) => x.toLocaleString('en');
  const mixers = [...new Set(config.mixers.map(({ type }) => type))].join(', ');
  const rows: [string, string | undefined][] = [
    ['parameters', `${n(parameters)}, stored as ${dtype}${packing(config)}`],
    ['architecture', `${config.numLayers} layers of ${mixers}, width ${config.hiddenSize}, ${inputOf(config)}`],
    ['data', run && dataOf(run)],
    ['tokenizer', run?.tokenizer?.type],
    ['training', run && step !== undefined ? trainingOf(run, step) : undefined],
    ['seed', run && String(run.seed)],
    ['held-out bits per byte', metrics.bestBpb?.toFixed(3)],
    ['held-out accuracy', metrics.bestAccuracy?.toFixed(4)],
  ];
  return [
    `# ${name}`,
    '',
    `${KINDS[config.modelType]} trained with seqmix.`,
    '',
    '| | |',
    '| --- | --- |',
    ...rows.flatMap(([label, value]) => (value ? [`| ${label} | ${value} |`] : [])),
    '',
    '```sh',
    ...(run ? [`npx seqmix train configs/runs/${run.name}.json   # how it was made`] : []),
    isSequenceConfig(config) ? `npx seqmix eval ${name}` : `npx seqmix generate ${name} --prompt "The "`,
    '```',
    '',
    '## Limits',
    '',
    isSequenceConfig(config)
      ? 'A small model of one set of data: it is right on sequences like those, and says something on all others too.'
      : 'A small model of one body of text: it writes in its manner, not sense, knows nothing of the world, and repeats what the text says, its prejudices included.',
    '',
  ].join('\n');
}

function packing(config: AnyModelConfig): string {
  if (config.modelType !== 'causal_lm' || !config.packed) return '';
  const each = { '2bit': '2 bits', base3: '1.6 bits (base 3)' }[config.packed];
  return `, ternary weights in ${each} each: for inference, not for training`;
}

const KINDS = {
  causal_lm: 'A language model',
  sequence_classifier: 'A classifier of sequences',
  sequence_regressor: 'A regressor on sequences',
} as const;

function inputOf(config: AnyModelConfig): string {
  const n = (x: number) => x.toLocaleString('en');
  const input =
    'inputSize' in config && config.inputSize !== undefined
      ? `${config.inputSize} numbers a step`
      : `vocabulary ${n(config.vocabSize as number)}`;
  if (config.modelType === 'causal_lm') return input;
  const output =
    config.modelType === 'sequence_classifier'
      ? `${n(config.numClasses)} classes`
      : `${n(config.numTargets)} numbers out`;
  return `${input}, ${output}`;
}

function dataOf({ data }: ModelRunInfo): string {
  const { source, valFraction } = data;
  if (isTask(source)) return `generated: ${JSON.stringify(source)}`;
  if (isLabelled(source)) return JSON.stringify(source);
  const from = source.type === 'npm' ? `npm package ${source.package}` : JSON.stringify(source);
  return `${from}; the last ${valFraction * 100} % held out`;
}

function trainingOf({ train, data }: ModelRunInfo, step: number): string {
  const { batchSize, seqLen, accumulate, lr, schedule, halveAt, weightDecay } = train;
  const tokens = step * batchSize * seqLen * accumulate;
  const halved = halveAt ? `, halved after ${halveAt * 100} % of the steps` : '';
  const rows = isLabelled(data.source)
    ? `${batchSize * accumulate} sequences`
    : `${batchSize * accumulate} x ${seqLen} tokens (${tokens.toLocaleString('en')})`;
  return `${step.toLocaleString('en')} steps of ${rows}, AdamW, learning rate ${lr}, ${schedule}${halved}, weight decay ${weightDecay}`;
}
