/** The card of an exported model: what it is, what it was trained on and how, and what not to expect of it. */
import type { ModelConfig } from '../models/index.js';
import { isTask } from './data/tasks/index.js';
import type { ModelRunInfo } from './openModel.js';

export interface CardFacts {
  /** Name of the model, as `seqmix generate` finds it. */
  name: string;
  config: ModelConfig;
  /** Numbers in all weights. */
  parameters: number;
  /** Element type of the file. */
  dtype: string;
  run?: ModelRunInfo;
  step?: number;
  /** Held-out bits per byte of the checkpoint, on the evaluation batches of the run. */
  bitsPerByte?: number;
}

/** A card in Markdown. The sections that only a person can write say so. */
export function modelCard({ name, config, parameters, dtype, run, step, bitsPerByte }: CardFacts): string {
  const n = (x: number) => x.toLocaleString('en');
  const mixers = [...new Set(config.mixers.map(({ type }) => type))].join(', ');
  const rows: [string, string | undefined][] = [
    ['parameters', `${n(parameters)}, stored as ${dtype}`],
    [
      'architecture',
      `${config.numLayers} layers of ${mixers}, width ${config.hiddenSize}, vocabulary ${n(config.vocabSize)}`,
    ],
    ['data', run && dataOf(run)],
    ['tokenizer', run?.tokenizer.type],
    ['training', run && step !== undefined ? trainingOf(run, step) : undefined],
    ['seed', run && String(run.seed)],
    ['held-out bits per byte', bitsPerByte?.toFixed(3)],
  ];
  return [
    `# ${name}`,
    '',
    'A language model trained with seqmix.',
    '',
    '| | |',
    '| --- | --- |',
    ...rows.flatMap(([label, value]) => (value ? [`| ${label} | ${value} |`] : [])),
    '',
    '```sh',
    ...(run ? [`npx seqmix train configs/runs/${run.name}.json   # how it was made`] : []),
    `npx seqmix generate ${name} --prompt "The "`,
    '```',
    '',
    '## Limits',
    '',
    'A small model of one body of text: it writes in its manner, not sense, knows nothing of the world, and repeats what the text says, its prejudices included.',
    '',
  ].join('\n');
}

function dataOf({ data }: ModelRunInfo): string {
  const { source, valFraction } = data;
  if (isTask(source)) return `generated: ${JSON.stringify(source)}`;
  const from = source.type === 'npm' ? `npm package ${source.package}` : JSON.stringify(source);
  return `${from}; the last ${valFraction * 100} % held out`;
}

function trainingOf({ train }: ModelRunInfo, step: number): string {
  const { batchSize, seqLen, accumulate, lr, schedule, weightDecay } = train;
  const tokens = step * batchSize * seqLen * accumulate;
  return `${step.toLocaleString('en')} steps of ${batchSize * accumulate} x ${seqLen} tokens (${tokens.toLocaleString('en')}), AdamW, learning rate ${lr}, ${schedule}, weight decay ${weightDecay}`;
}
