/** Everything that must stand before the first step: backend, data, model, optimizer, run folder, and what a resumed run brings along. */
import { existsSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { useBackend } from '../backend/useBackend.js';
import { installedBuild } from '../chunked/wasm/runtime.js';
import { AdamW } from '../chunked/adamW/index.js';
import type { RunConfig } from '../config/index.js';
import { CausalLM } from '../models/index.js';
import { type CheckpointParts, dropCheckpointsAfter, latestCheckpoint, loadCheckpoint } from './checkpoint/index.js';
import { loadTrainingData, type SequenceReader, type TrainingData } from './data/index.js';
import { MetricsLog } from './metrics.js';
import { formatBytes } from './progress.js';
import { loadTokenizer, type Tokenizer } from './tokenizers/index.js';
import { momentsFrom } from './weights.js';

/** A run ready to go; the loop moves `step` and `best`. */
export interface PreparedRun {
  config: RunConfig;
  model: CausalLM;
  optimizer: AdamW;
  tokenizer: Tokenizer;
  data: TrainingData;
  reader: SequenceReader;
  metrics: MetricsLog;
  /** Updates done. */
  step: number;
  best: { step: number; value: number } | undefined;
  /** Folder of the run. */
  dir: string;
  tokensPerStep: number;
  /** performance.now() at the start. */
  startedAt: number;
  /** Lines that say what is about to run. */
  intro: string[];
  dispose(): void;
}

export async function prepareRun(
  config: RunConfig,
  { resume = false, fresh = false }: { resume?: boolean; fresh?: boolean },
): Promise<PreparedRun> {
  const startedAt = performance.now();
  const dir = config.output.dir;
  const from = await startingPoint(config, { resume, fresh });
  await useBackend(config.backend.name, { relaxedSimd: config.backend.relaxedSimd });
  const tokenizer = await loadTokenizer(config.tokenizer);
  const data = await loadTrainingData(config, tokenizer);
  const reader = data.trainingReader();
  const model = new CausalLM(config.model, { seed: config.seed });
  const optimizer = new AdamW({ betas: config.train.betas, eps: config.train.eps });
  if (from) {
    model.loadWeights(from.weights);
    optimizer.loadState(momentsFrom(from.optimizer, from.step));
    reader.seek(from.data as ReturnType<SequenceReader['position']>);
  }
  mkdirSync(dir, { recursive: true });
  const metrics = new MetricsLog(join(dir, 'metrics.jsonl'));
  metrics.truncateAfter(from?.step ?? -1);
  await dropCheckpointsAfter(dir, from?.step ?? -1);
  const tokensPerStep = config.train.batchSize * config.train.seqLen * config.train.accumulate;
  return {
    ...{ config, model, optimizer, tokenizer, data, reader, metrics, dir, tokensPerStep, startedAt },
    step: from?.step ?? 0,
    best: from?.best,
    intro: intro(config, model, data, from),
    dispose: () => {
      model.dispose();
      optimizer.dispose();
    },
  };
}

/** The checkpoint to go on from, or undefined for a run from the start. */
async function startingPoint(config: RunConfig, { resume, fresh }: { resume: boolean; fresh: boolean }): Promise<CheckpointParts | undefined> {
  const { dir } = config.output;
  if (fresh) {
    rmSync(join(dir, 'checkpoints'), { recursive: true, force: true });
    for (const name of ['best.json', 'metrics.jsonl']) rmSync(join(dir, name), { force: true });
    return undefined;
  }
  const path = existsSync(dir) ? await latestCheckpoint(dir) : undefined;
  if (!resume && path)
    throw new Error(`train: ${dir} already holds a run (${path}); pass --resume to go on, --fresh to delete it and start anew, or set --output.dir`);
  if (!path) return undefined; // --resume before the first checkpoint starts from the beginning, which is the same run
  const parts = await loadCheckpoint(path);
  checkSameRun(path, parts, config);
  return parts;
}

/** What may not change when a run is resumed: these decide the shapes of the weights or the meaning of the reader's position. */
function checkSameRun(path: string, parts: CheckpointParts, config: RunConfig): void {
  const before = parts.runConfig as RunConfig;
  const { batchSize, seqLen, accumulate } = config.train;
  const pairs: [string, unknown, unknown][] = [
    ['model', parts.modelConfig, config.model],
    ['seed', before.seed, config.seed],
    ['tokenizer', before.tokenizer, config.tokenizer],
    ['data', before.data, config.data],
    ['train.batchSize', before.train.batchSize, batchSize],
    ['train.seqLen', before.train.seqLen, seqLen],
    ['train.accumulate', before.train.accumulate, accumulate],
  ];
  const plain = (x: unknown) => JSON.parse(JSON.stringify(x ?? null)) as unknown;
  const changed = pairs.filter(([, a, b]) => !isDeepStrictEqual(plain(a), plain(b)));
  if (changed.length === 0) return;
  const list = changed.map(([name, a, b]) => `  ${name}: the checkpoint has ${short(a)}, the config ${short(b)}`).join('\n');
  throw new Error(`train: ${path} is of another run:\n${list}\nResume with the config it was made with, or start anew with --fresh or another --output.dir`);
}

const short = (x: unknown) => {
  const text = JSON.stringify(x) ?? 'nothing';
  return text.length > 160 ? `${text.slice(0, 157)}...` : text;
};

function intro(config: RunConfig, model: CausalLM, data: TrainingData, from: CheckpointParts | undefined): string[] {
  const { batchSize, seqLen, accumulate, steps } = config.train;
  const simd = config.backend.name === 'wasm' ? ` (${installedBuild()} SIMD kernels)` : '';
  const n = (x: number) => x.toLocaleString('en');
  return [
    `seqmix ${config.name}: ${n(model.numParameters)} parameters, ${config.model.numLayers} layers, backend ${config.backend.name}${simd}, seed ${config.seed}`,
    `data: ${data.summary}`,
    `steps: ${n(steps)} of ${batchSize} x ${seqLen}${accumulate > 1 ? ` x ${accumulate}` : ''} tokens; state of a stream: ${formatBytes(model.stateBytes(1, seqLen))}`,
    ...(from ? [`resumed at step ${n(from.step)}`] : []),
    '',
  ];
}
