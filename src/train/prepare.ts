/** Everything that must stand before the first step: backend, data, model, optimizer, run folder, and what a resumed run brings along. Node only. */
import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { libraryName } from '../backend/native.js';
import { AdamW } from '../chunked/adamW/index.js';
import { installedBuild, installedNative } from '../chunked/wasm/runtime.js';
import type { RunConfig } from '../config/index.js';
import { quote } from '../config/problems.js';
import { type AnyModel, CausalLM, createAnyModel } from '../models/index.js';
import { startBackend } from './arithmetic.js';
import {
  CheckpointError,
  type CheckpointParts,
  dropCheckpointsAfter,
  latestCheckpoint,
  loadCheckpoint,
  lockRun,
} from './checkpoint/index.js';
import {
  type AnyBatch,
  type BatchReader,
  loadTrainingData,
  type ReaderPosition,
  type TrainingData,
} from './data/index.js';
import { MetricsLog } from './metrics.js';
import { objectiveOf } from './objectives/index.js';
import { WorkerPool } from './parallel/index.js';
import { formatBytes } from './progress.js';
import { loadTokenizer, type Tokenizer } from './tokenizers/index.js';
import { momentsFrom } from './weights.js';

/** A run ready to go; the loop moves `step`, `savedStep` and `best`. */
export interface PreparedRun {
  config: RunConfig;
  model: AnyModel;
  optimizer: AdamW;
  /** The threads that share each update; undefined for one worker. */
  pool: WorkerPool | undefined;
  /** Undefined where the data are no tokens. */
  tokenizer: Tokenizer | undefined;
  data: TrainingData;
  reader: BatchReader<AnyBatch>;
  metrics: MetricsLog;
  /** Updates done. */
  step: number;
  /** Step of the newest checkpoint; 0 when there is none. */
  savedStep: number;
  /** The best evaluation so far, by the figure that counts (see `figureOf`). */
  best: { step: number; value: number } | undefined;
  /** Folder of the run. */
  dir: string;
  /** Tokens or sequences trained on in an update. */
  unitsPerStep: number;
  /** performance.now() at the start. */
  startedAt: number;
  /** Lines that say what is about to run. */
  intro: string[];
  dispose(): Promise<void>;
}

/** What a checkpoint says of the data: where the reader stood, and in which text. */
export type DataPosition = ReaderPosition & { fingerprint: string };

interface Start {
  resume?: boolean;
  fresh?: boolean;
}

/**
 * Opens a run, alone in its folder until `dispose`; an earlier one there is only touched (resumed, or deleted by `fresh`) when all else
 * stands.
 */
export async function prepareRun(config: RunConfig, start: Start): Promise<PreparedRun> {
  const unlock = await lockRun(config.output.dir);
  try {
    const run = await openRun(config, start);
    return { ...run, dispose: () => run.dispose().finally(unlock) };
  } catch (error) {
    await unlock();
    throw error;
  }
}

async function openRun(given: RunConfig, { resume = false, fresh = false }: Start): Promise<PreparedRun> {
  const startedAt = performance.now();
  const { dir } = given.output;
  const from = fresh ? undefined : await startingPoint(given, resume);
  const { backend, warnings } = await startBackend(given.backend, (from?.runConfig as RunConfig | undefined)?.backend);
  const config = { ...given, backend }; // a checkpoint says what was in use
  const tokenizer = config.tokenizer && loadTokenizer(config.tokenizer);
  const data = await loadTrainingData(config, tokenizer);
  const reader = data.trainingReader();
  if (from) seekReader(reader, data, from.data as DataPosition, dir);
  const model = createAnyModel(config.model, { seed: config.seed });
  const { batchSize, seqLen, accumulate, workers, betas, eps } = config.train;
  const optimizer = new AdamW({ betas, eps });
  if (from) {
    model.loadWeights(from.weights);
    optimizer.loadState(momentsFrom(from.optimizer, from.step));
  }
  const metrics = new MetricsLog(join(dir, 'metrics.jsonl'));
  const pool =
    workers > 1
      ? await WorkerPool.start(model, optimizer, {
          ...{ workers, timeout: config.train.workerTimeout },
          ...{ backend: config.backend, adamW: { betas, eps } },
        })
      : undefined;
  const dispose = async () => {
    await pool?.close();
    model.dispose();
    optimizer.dispose();
  };
  await openFolder(dir, metrics, from?.step, fresh).catch(async (error: unknown) => {
    await dispose();
    throw error;
  });
  return {
    ...{ config, model, optimizer, pool, tokenizer, data, reader, metrics, dir, startedAt, dispose },
    step: from?.step ?? 0,
    savedStep: from?.step ?? 0,
    best: from?.best,
    unitsPerStep: batchSize * accumulate * (objectiveOf(model).unit === 'tokens' ? seqLen : 1),
    intro: [...intro(config, model, data, from), ...warnings, ''],
  };
}

/** The checkpoint to go on from, or undefined for a run from the start. */
async function startingPoint(config: RunConfig, resume: boolean): Promise<CheckpointParts | undefined> {
  const { dir } = config.output;
  const path = existsSync(dir) ? await latestCheckpoint(dir) : undefined;
  if (!path) return undefined; // to resume before the first checkpoint is to start from the beginning: the same run
  if (!resume)
    throw new Error(
      `train: ${dir} already holds a run (${path}); pass --resume to go on, --fresh to delete it and start anew, or set --output.dir`,
    );
  const parts = await loadCheckpoint(path).catch((error: unknown) => {
    if (!(error instanceof CheckpointError)) throw error;
    throw new CheckpointError(`${error.message}. Delete ${path} and pass --resume to go on from the one before it`);
  });
  checkSameRun(path, parts, config);
  return parts;
}

/** Forgets what an earlier run left in the folder after `step` (undefined: all). */
async function openFolder(dir: string, metrics: MetricsLog, step = -1, fresh = false): Promise<void> {
  if (fresh) rmSync(join(dir, 'best.json'), { force: true }); // it may be damaged, which must not stop a fresh start
  metrics.truncateAfter(step);
  await dropCheckpointsAfter(dir, step);
}

function seekReader(
  reader: BatchReader<AnyBatch>,
  data: TrainingData,
  { fingerprint, ...position }: DataPosition,
  dir: string,
): void {
  if (fingerprint !== data.fingerprint)
    throw new Error(
      `train: the checkpoint in ${dir} was trained on other data (sha256 of its tokens ${short(fingerprint)}, now ${short(data.fingerprint)}); restore data and tokenizer, or start anew with --fresh or another --output.dir`,
    );
  reader.seek(position);
}

const short = (hash: string | undefined) => hash?.slice(0, 16) ?? 'unknown';

/** What may not change when a run is resumed: these decide the shapes of the weights or the meaning of the reader's position. */
function checkSameRun(path: string, parts: CheckpointParts, config: RunConfig): void {
  const before = parts.runConfig as RunConfig;
  const keys = ['batchSize', 'seqLen', 'accumulate', 'betas', 'eps'] as const;
  const pairs: [string, unknown, unknown][] = [
    ['seed', before.seed, config.seed],
    ...keys.map((key): [string, unknown, unknown] => [`train.${key}`, before.train[key], config.train[key]]),
    ...differences('model', parts.modelConfig, config.model),
  ];
  const changed = pairs.filter(([, a, b]) => !isDeepStrictEqual(a, b));
  if (changed.length === 0) return;
  const list = changed.map(([name, a, b]) => `  ${name}: the checkpoint has ${quote(a)}, the config ${quote(b)}`);
  throw new Error(
    `train: ${path} is of another run:\n${list.join('\n')}\nResume with the config it was made with, or start anew with --fresh or another --output.dir`,
  );
}

/** The settings below `path` that may differ, one by one. */
function differences(path: string, before: unknown, now: unknown): [string, unknown, unknown][] {
  const isObject = (x: unknown): x is Record<string, unknown> => typeof x === 'object' && x !== null;
  if (!isObject(before) || !isObject(now)) return [[path, before, now]];
  const keys = new Set([...Object.keys(before), ...Object.keys(now)]);
  return [...keys].flatMap((key) => differences(`${path}.${key}`, before[key], now[key]));
}

function intro(config: RunConfig, model: AnyModel, data: TrainingData, from: CheckpointParts | undefined): string[] {
  const { batchSize, seqLen, accumulate, steps, workers } = config.train;
  const before = (from?.runConfig as RunConfig | undefined)?.train.workers ?? 1;
  const native = installedNative();
  const products = native ? `, products by ${libraryName(native)}` : '';
  const simd = config.backend.name === 'wasm' ? ` (${installedBuild()} SIMD kernels${products})` : '';
  const n = (x: number) => x.toLocaleString('en');
  const times = accumulate > 1 ? ` x ${accumulate}` : '';
  const rows = model instanceof CausalLM ? `${batchSize} x ${seqLen}${times} tokens` : `${batchSize}${times} sequences`;
  return [
    `seqmix ${config.name}: ${n(model.numParameters)} parameters, ${config.model.numLayers} layers, backend ${config.backend.name}${simd}, seed ${config.seed}`,
    `data: ${data.summary}`,
    `steps: ${n(steps)} of ${rows}${workers > 1 ? ` on ${workers} workers` : ''}${model instanceof CausalLM ? `; state of a stream: ${formatBytes(model.stateBytes(1, seqLen))}` : ''}`,
    ...ownRates(model, config.train),
    ...(from ? [`resumed at step ${n(from.step)}`] : []),
    ...(from && before !== workers
      ? [`train.workers was ${before} and is ${workers}: sums are taken in another order, so the last bits will differ`]
      : []),
  ];
}

/** The groups of the optimizer, where some weights have a learning rate of their own. */
function ownRates(model: AnyModel, { lr, weightDecay }: RunConfig['train']): string[] {
  if (model.learningRates.size === 0) return [];
  const groups = new Map<string, number>();
  for (const [name, { size }] of model.weights) {
    if (model.balanceRates.has(name) || model.runningRates.has(name)) continue;
    const rate = Math.min(lr, model.learningRates.get(name) ?? lr);
    const group = rate === 0 ? 'frozen' : `lr ${rate}, weight decay ${model.noDecay(name) ? 0 : weightDecay}`;
    groups.set(group, (groups.get(group) ?? 0) + size);
  }
  const list = [...groups].map(([group, size]) => `${size.toLocaleString('en')} parameters with ${group}`);
  return [`optimizer: ${list.join('; ')}`];
}
