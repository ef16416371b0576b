/**
 * The one training loop: reads from top to bottom. Data, schedule and optimizer do not know one another; the loop alone does.
 * A resumed run equals an unbroken one: everything that decides a number is in the checkpoint (weights, moments, reader position)
 * or is a pure function of the step (schedule, sampling seeds).
 */
import * as tf from '@tensorflow/tfjs';
import type { RunConfig } from '../config/index.js';
import { saveCheckpoint } from './checkpoint/index.js';
import { bitsPerByte, type Evaluation, evaluate, gzipBitsPerByte } from './evaluate.js';
import { createProgress, formatBytes, formatDuration, formatStep, type Progress } from './progress.js';
import { type PreparedRun, prepareRun } from './prepare.js';
import { sampleText } from './sample.js';
import { learningRate } from './schedule.js';
import { NonFiniteLossError, trainStep } from './step.js';
import { modelWeights, optimizerMoments } from './weights.js';

export interface TrainOptions {
  /** Go on from the last checkpoint of the run's folder. Default false: a folder that already holds a run is refused. */
  resume?: boolean;
  /** Delete an earlier run in the same folder first. Default false. */
  fresh?: boolean;
  /** Abort to stop after the step at hand: a checkpoint is saved and the result says `interrupted`. */
  signal?: AbortSignal;
  /** Where lines go; default: stdout, with a bar on a terminal. */
  progress?: Progress;
}

export interface TrainResult {
  status: 'done' | 'interrupted';
  /** Updates done. */
  step: number;
  /** The last evaluation over the whole validation part; undefined when interrupted. */
  final?: Evaluation;
  /** The best evaluation of the run, bits per byte. */
  best?: { step: number; value: number };
  /** Folder of the run. */
  runDir: string;
}

/** The loss was NaN or infinite: the run stopped before that update. */
export class TrainingDivergedError extends Error {
  override name = 'TrainingDivergedError';
}

/**
 * Trains the model that `config` describes and writes `metrics.jsonl` and checkpoints below `config.output.dir`.
 * @throws ConfigError, DataError, CheckpointError before the first step; TrainingDivergedError when the loss is not finite
 */
export async function train(config: RunConfig, options: TrainOptions = {}): Promise<TrainResult> {
  const run = await prepareRun(config, options);
  const progress = options.progress ?? createProgress(config.train.steps, run.step);
  try {
    for (const line of run.intro) progress.line(line);
    return await trainFrom(run, progress, options.signal);
  } finally {
    progress.stop();
    run.dispose();
  }
}

async function trainFrom(run: PreparedRun, progress: Progress, signal?: AbortSignal): Promise<TrainResult> {
  const { config, model, optimizer, reader, metrics } = run;
  const { steps, logEvery, evalEvery, saveEvery, sampleEvery, accumulate } = config.train;
  const bytesPerToken = run.data.bytesPerToken;
  const startTime = performance.now();
  const startStep = run.step;
  let [loggedAt, loggedStep, savedStep] = [startTime, run.step, run.step];

  while (run.step < steps) {
    if (signal?.aborted) {
      if (savedStep !== run.step) await save(run);
      progress.line(`stopped at step ${run.step}; saved. Go on with the same command and --resume`);
      return { status: 'interrupted', step: run.step, best: run.best, runDir: run.dir };
    }

    const lr = learningRate(run.step, config.train);
    const batches = Array.from({ length: accumulate }, () => reader.next());
    const { loss, gradNorm } = await trainStep(model, optimizer, batches, { ...config.train, learningRate: lr }).catch(
      (error: unknown) => {
        throw error instanceof NonFiniteLossError ? diverged(run, error, lr, savedStep) : error;
      },
    );
    run.step += 1;
    const { step } = run;
    const due = (every: number) => every > 0 && (step % every === 0 || step === steps);
    progress.tick({ step, loss });

    if (due(logEvery) || step === startStep + 1) {
      const now = performance.now();
      const tokensPerSecond = ((step - loggedStep) * run.tokensPerStep) / ((now - loggedAt) / 1e3);
      [loggedAt, loggedStep] = [now, step];
      const bpb = bitsPerByte(loss, bytesPerToken);
      const memoryBytes = process.memoryUsage().rss;
      const etaSeconds = (((now - startTime) / (step - startStep)) * (steps - step)) / 1e3;
      progress.line(
        formatStep({ step, steps, loss, bpb, learningRate: lr, gradNorm, tokensPerSecond, memoryBytes, etaSeconds }),
      );
      metrics.append({ kind: 'train', step, loss, bpb, lr, gradNorm, tokens: step * run.tokensPerStep, tokensPerSecond: Math.round(tokensPerSecond), memoryBytes });
    }
    const pause = performance.now();
    const isBest = due(evalEvery) && (await evaluateNow(run, progress));
    if (due(sampleEvery) && step < steps) await showSamples(run, progress, 1);
    if (isBest || due(saveEvery) || step === steps) {
      await save(run, isBest);
      savedStep = step;
    }
    loggedAt += performance.now() - pause; // tokens per second is of training alone
    await new Promise((resolve) => setImmediate(resolve)); // lets Ctrl-C through
  }

  return finish(run, progress);
}

/** Evaluates on the same `evalBatches` batches each time, reports, and says whether it is the best so far. */
async function evaluateNow(run: PreparedRun, progress: Progress): Promise<boolean> {
  const batches = run.data.validationBatches(run.config.train.evalBatches);
  const result = await evaluate(run.model, batches, run.data.bytesPerToken);
  const isBest = !run.best || result.bpb < run.best.value;
  if (isBest) run.best = { step: run.step, value: result.bpb };
  run.metrics.append({ kind: 'eval', step: run.step, ...result });
  progress.line(formatEvaluation(run.step, result, isBest));
  return isBest;
}

function formatEvaluation(step: number, { loss, bpb, tokens }: Evaluation, isBest: boolean): string {
  return `eval at step ${step}: ${loss.toFixed(4)} nats/token, ${bpb.toFixed(3)} bits/byte over ${tokens.toLocaleString('en')} tokens${isBest ? ' (best so far)' : ''}`;
}

async function showSamples(run: PreparedRun, progress: Progress, count: number): Promise<void> {
  const { samplePrompts, sampleTokens } = run.config.train;
  for (const [i, prompt] of samplePrompts.slice(0, count).entries()) {
    const text = await sampleText(run.model, run.tokenizer, prompt, { maxTokens: sampleTokens, seed: run.config.seed + i });
    progress.line(`\n--- sample ${i + 1}: ${JSON.stringify(prompt)}\n${prompt}${text}\n---\n`);
  }
}

/** The whole validation part, the comparison with gzip, samples. */
async function finish(run: PreparedRun, progress: Progress): Promise<TrainResult> {
  const { config } = run;
  progress.stop();
  const final = await evaluate(run.model, run.data.validationBatches(), run.data.bytesPerToken);
  run.metrics.append({ kind: 'eval', step: run.step, ...final, whole: true });
  progress.line(
    `\nwhole validation part: ${final.loss.toFixed(4)} nats/token, ${final.bpb.toFixed(3)} bits/byte (${final.tokens.toLocaleString('en')} tokens)`,
  );
  if (config.train.compareGzip) {
    const gzip = gzipBitsPerByte(run.data.validationBytes());
    const verdict = final.bpb < gzip ? 'the model is ahead' : 'gzip is ahead';
    progress.line(`gzip -9 on the same bytes: ${gzip.toFixed(3)} bits/byte; ${verdict}`);
  }
  await showSamples(run, progress, 3);
  progress.line(`took ${formatDuration((performance.now() - run.startedAt) / 1e3)}, ${formatBytes(process.memoryUsage().rss)}, ${tf.memory().numTensors} tensors`);
  progress.line(`run: ${run.dir}\nsample more: seqmix generate ${run.dir} --prompt ${JSON.stringify(config.train.samplePrompts[0] ?? 'The ')}`);
  return { status: 'done', step: run.step, final, best: run.best, runDir: run.dir };
}

async function save(run: PreparedRun, isBest = false): Promise<string> {
  const { config, model, optimizer, reader } = run;
  return saveCheckpoint(
    run.dir,
    {
      step: run.step,
      weights: await modelWeights(model),
      optimizer: await optimizerMoments(optimizer),
      modelConfig: model.config,
      runConfig: config,
      data: reader.position(),
      rng: null,
      metrics: run.best ? { bestBpb: run.best.value } : {},
      best: run.best,
    },
    { keepLast: config.train.keepLast, isBest },
  );
}

function diverged(run: PreparedRun, error: NonFiniteLossError, lr: number, savedStep: number): TrainingDivergedError {
  const kept = savedStep > 0 ? `the checkpoint of step ${savedStep} is intact` : 'no checkpoint was due before';
  return new TrainingDivergedError(
    `train: the ${error.message} at step ${run.step + 1} (learning rate ${lr.toExponential(2)}), and the run stopped before that update; ${kept}. ` +
      'Lower train.lr, raise train.warmupSteps or lower train.clipNorm, then start again or pass --resume',
  );
}
