/**
 * Training: run configs, the loop, evaluation, checkpoints, data, tokenizers. This is the whole, for Node; a bundled page gets `browser.ts`.
 *
 * ```ts
 * import { loadRunConfig, openModel, createModel, sampleText, tokenizerOf, train } from 'seqmix/train';
 *
 * const { runDir } = await train(loadRunConfig('configs/runs/quickstart.json', ['--train.steps=100']));
 * const opened = await openModel(runDir);
 * console.log(await sampleText(createModel(opened), tokenizerOf(opened), 'Call me Ishmael. ', { maxTokens: 100 }));
 * ```
 *
 * For a loop of one's own: `loadTrainingData` or `SequenceReader` for batches, `trainStep` with `AdamW`, `learningRate`, `evaluate`,
 * `saveCheckpoint`.
 */
export * from '../config/index.js';
export * from '../prefill/index.js';
export { WorkerError } from '../threads/index.js';
export * from './browser.js';
export * from './checkpoint/index.js';
export * from './data/index.js';
export { bitsPerByte, type EvaluateOptions, type Evaluation, evaluate, gzipBitsPerByte } from './evaluate.js';
export { TrainingDivergedError, type TrainOptions, type TrainResult, train } from './loop.js';
export { MetricsLog, type MetricsRow } from './metrics.js';
export { type NoiseSweep, type NoiseSweepOptions, noiseSweep } from './noiseSweep.js';
export {
  createModel,
  createSequenceModel,
  type ModelRunInfo,
  type OpenedModel,
  openModel,
  pretrainedNames,
  tokenizerOf,
} from './openModel.js';
export * from './parallel/index.js';
export type { ProfileOptions } from './profile.js';
export { createProgress, type Progress } from './progress.js';
export * from './tokenizers/index.js';
