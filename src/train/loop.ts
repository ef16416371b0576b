/**
 * The one training loop: reads from top to bottom. Data, schedule and optimizer do not know one another; the loop alone does.
 * A resumed run equals an unbroken one: everything that decides a number is in the checkpoint (weights, moments, reader position)
 * or is a pure function of the step (schedule, sampling seeds).
 */
import { join } from 'node:path';
import { NonFiniteGradientError } from '../chunked/adamW/index.js';
import type { RunConfig } from '../config/index.js';
import { CausalLM, SequenceClassifier, SequenceRegressor } from '../models/index.js';
import { WorkerError } from '../threads/index.js';
import { saveCheckpoint } from './checkpoint/index.js';
import type { AnyBatch } from './data/index.js';
import { bitsPerByte, describeEvaluation, type Evaluation, evaluate, gzipBitsPerByte } from './evaluate.js';
import { figureOf, isBetter, objectiveOf } from './objectives/index.js';
import { type DataPosition, type PreparedRun, prepareRun } from './prepare.js';
import { type ProfileOptions, StepProfiler } from './profile.js';
import { createProgress, formatBytes, formatDuration, formatStep, Pace, type Progress } from './progress.js';
import { sampleText } from './sample.js';
import { learningRate } from './schedule.js';
import { NonFiniteLossError, type StepResult, trainStep } from './step.js';
import { modelWeights, optimizerMoments } from './weights.js';

export interface TrainOptions {
  /** Go on from the last checkpoint of the run's folder. Default false: a folder that already holds a run is refused. */
  resume?: boolean;
  /** Delete an earlier run in the same folder first. Default false. */
  fresh?: boolean;
  /** Abort to stop after the step at hand: a checkpoint is saved and the result says `interrupted`. */
  signal?: AbortSignal;
  /** Measure some steps after the first few, print where their time goes, and write a trace. Default: none. */
  profile?: ProfileOptions;
  /** Where lines go; default: stdout, with a bar on a terminal. */
  progress?: Progress;
}

export interface TrainResult {
  status: 'done' | 'interrupted';
  /** Updates done. */
  step: number;
  /** The evaluation over the whole validation part; undefined when interrupted or without such a part. */
  final?: Evaluation;
  /** The best evaluation of the run: bits per byte of text, nats per token of a generated task, accuracy of a classifier, squared error of a regressor. */
  best?: { step: number; value: number };
  /** Folder of the run. */
  runDir: string;
}

/** The loss was NaN or infinite: the run stopped, and its checkpoints are of before that. */
export class TrainingDivergedError extends Error {
  override readonly name = 'TrainingDivergedError';
}

/**
 * Trains the model that `config` describes and writes `metrics.jsonl` and checkpoints below `config.output.dir`.
 * @param config from `loadRunConfig` or `resolveRunConfig`
 * @throws DataError, CheckpointError, or Error where a run stands in the way, before the first step;
 *   TrainingDivergedError when the loss is not finite
 */
export async function train(config: RunConfig, options: TrainOptions = {}): Promise<TrainResult> {
  const run = await prepareRun(config, options);
  const progress = options.progress ?? createProgress(config.train.steps, run.step);
  const { signal, profile } = options;
  const profiler = profile && new StepProfiler(profile.file ?? join(run.dir, 'profile.json'), profile);
  try {
    for (const line of run.intro) progress.line(line);
    await trainSteps(run, progress, signal, profiler);
    const final = await finish(run, progress, signal);
    return { status: 'done', step: run.step, final, best: run.best, runDir: run.dir };
  } catch (error) {
    if (error instanceof WorkerError) throw workerLost(run, error);
    if (!signal?.aborted || error !== signal.reason) throw error;
    if (run.savedStep !== run.step) await save(run);
    const state = run.step ? `stopped at step ${run.step}; saved` : 'stopped before the first step';
    progress.line(`${state}. Go on with the same command and --resume`);
    return { status: 'interrupted', step: run.step, best: run.best, runDir: run.dir };
  } finally {
    profiler?.stop();
    progress.stop();
    await run.dispose();
  }
}

async function trainSteps(
  run: PreparedRun,
  progress: Progress,
  signal?: AbortSignal,
  profiler?: StepProfiler,
): Promise<void> {
  const { config, reader } = run;
  const { steps, logEvery, evalEvery, saveEvery, sampleEvery, accumulate } = config.train;
  const pace = new Pace(run.step, steps, run.unitsPerStep);
  const resumedAt = run.step;

  while (run.step < steps) {
    signal?.throwIfAborted();
    const lr = learningRate(run.step, config.train);
    profiler?.begin(run.step + 1);
    const batches = Array.from({ length: accumulate }, () => reader.next());
    const logs = isDue(run, run.step + 1, logEvery) || run.step === 0;
    const accuracy = logs || run.step === resumedAt ? await accuracyBefore(run, batches) : undefined;
    const result = await update(run, batches, lr, profiler?.phase);
    const report = profiler?.end();
    run.step += 1;
    const { step } = run;
    const due = (every: number) => isDue(run, step, every);
    progress.tick({ step, loss: result.loss });
    if (report) progress.line(report);

    if (logs) logStep(run, progress, pace, lr, { ...result, accuracy }, true);
    else if (step === resumedAt + 1) logStep(run, progress, pace, lr, { ...result, accuracy }, false);
    await pace.pause(async () => {
      const isBest = due(evalEvery) && (await evaluateNow(run, progress, lr));
      if (due(sampleEvery) && step < steps) await showSamples(run, progress, 1);
      if (isBest || due(saveEvery) || step === steps) await save(run, isBest);
    });
    await new Promise((resolve) => setImmediate(resolve)); // lets Ctrl-C through
  }
}

/** @param every steps; 0: never. The last step is always due */
const isDue = ({ config: { train } }: PreparedRun, step: number, every: number) =>
  every > 0 && (step % every === 0 || step === train.steps);

/** Of tasks and classes, the share of right answers in batches that are still to be trained on: of fresh examples no more than is due. */
async function accuracyBefore({ model, pool, data }: PreparedRun, batches: AnyBatch[]): Promise<number | undefined> {
  if (data.bytesPerToken !== undefined || model instanceof SequenceRegressor) return undefined;
  return (await evaluate(model, batches, undefined, { pool })).accuracy;
}

/** @throws TrainingDivergedError, with the weights of before */
async function update(
  run: PreparedRun,
  batches: AnyBatch[],
  lr: number,
  onPhase?: StepProfiler['phase'],
): Promise<StepResult> {
  const { model, optimizer, pool, config, step } = run;
  const { lr: peakLearningRate } = config.train;
  const noise = `${config.seed} ${step}`;
  const options = { ...config.train, learningRate: lr, peakLearningRate, noise, onPhase };
  try {
    return await (pool ? pool.step(batches, options) : trainStep(model, optimizer, batches, options));
  } catch (error) {
    if (error instanceof NonFiniteLossError) throw diverged(run, `the ${error.message}`, step + 1, lr);
    if (error instanceof NonFiniteGradientError) throw diverged(run, 'a gradient is not finite', step + 1, lr);
    throw error;
  }
}

/** @param keep also into `metrics.jsonl`: a line that an unbroken run has too */
function logStep(
  run: PreparedRun,
  progress: Progress,
  pace: Pace,
  lr: number,
  { loss, gradNorm, expertLoad, accuracy }: StepResult & { accuracy?: number },
  keep: boolean,
): void {
  const { step, metrics, data, model, unitsPerStep } = run;
  const { unitsPerSecond, etaSeconds } = pace.lap(step);
  const { unit } = objectiveOf(model);
  const bpb = bitsPerByte(loss, data.bytesPerToken);
  const memoryBytes = process.memoryUsage().rss;
  const { steps } = run.config.train;
  progress.line(
    formatStep({
      ...{ step, steps, loss, bpb, accuracy, learningRate: lr, gradNorm, expertLoad },
      ...{ unitsPerSecond, unit, memoryBytes, etaSeconds },
    }),
  );
  if (keep)
    metrics.append({
      ...{ kind: 'train', step, loss, bpb, accuracy, lr, gradNorm, expertLoad },
      ...{ [unit]: step * unitsPerStep, [`${unit}PerSecond`]: Math.round(unitsPerSecond), memoryBytes },
    });
}

/** Evaluates on the same `evalBatches` batches each time, reports, and says whether it is the best so far. */
async function evaluateNow(run: PreparedRun, progress: Progress, lr: number): Promise<boolean> {
  const { model, pool, data, config } = run;
  const { validation } = data;
  if (!validation) return false;
  const result = await evaluate(model, validation.batches(config.train.evalBatches), validation.bytesPerToken, {
    pool,
  });
  if (!Number.isFinite(result.loss)) throw diverged(run, `the validation loss is ${result.loss}`, run.step, lr);
  const figure = figureOf(result);
  const isBest = !run.best || isBetter(figure, run.best.value);
  if (isBest) run.best = { step: run.step, value: figure.value };
  run.metrics.append({ kind: 'eval', step: run.step, ...result });
  progress.line(
    `eval at step ${run.step}: ${describeEvaluation(result)}${isBest ? ', best so far' : `; best ${run.best?.value.toFixed(3)} at step ${run.best?.step}`}`,
  );
  return isBest;
}

async function showSamples(run: PreparedRun, progress: Progress, count: number, signal?: AbortSignal): Promise<void> {
  const { samplePrompts, sampleTokens: maxTokens, sampleTemperature: temperature } = run.config.train;
  const { model, tokenizer } = run;
  if (!(model instanceof CausalLM && tokenizer)) return;
  for (const [i, prompt] of samplePrompts.slice(0, count).entries()) {
    const options = { maxTokens, temperature, seed: run.config.seed + i, signal };
    const text = await sampleText(model, tokenizer, prompt, options);
    progress.line(`\n--- sample ${i + 1}: ${JSON.stringify(prompt)}\n${prompt}${text}\n---`);
  }
}

/** The whole validation part, the comparison with gzip, samples. */
async function finish(run: PreparedRun, progress: Progress, signal?: AbortSignal): Promise<Evaluation | undefined> {
  const { validation } = run.data;
  progress.stop();
  let final: Evaluation | undefined;
  if (validation) {
    final = await evaluate(run.model, validation.batches(), validation.bytesPerToken, {
      ...{ signal, pool: run.pool },
    });
    run.metrics.append({ kind: 'final', step: run.step, ...final });
    progress.line(`\nwhole validation part: ${describeEvaluation(final)}`);
    if (run.config.train.compareGzip && validation.bytes && final.bpb !== undefined) {
      const gzip = gzipBitsPerByte(validation.bytes());
      const verdict = final.bpb < gzip ? 'the model is ahead' : 'gzip is ahead';
      progress.line(`gzip -9 of the same bytes: ${gzip.toFixed(3)} bits/byte; ${verdict}`);
    }
  }
  await showSamples(run, progress, 3, signal);
  const seconds = (performance.now() - run.startedAt) / 1e3;
  progress.line(`\ntook ${formatDuration(seconds)}; memory ${formatBytes(process.memoryUsage().rss)}`);
  progress.line(`run: ${run.dir}`);
  const prompt = run.config.train.samplePrompts[0] ?? (run.data.bytesPerToken && 'The ');
  if (prompt) progress.line(`sample more: seqmix generate ${run.dir} --prompt ${JSON.stringify(prompt)}`);
  return final;
}

async function save(run: PreparedRun, isBest = false): Promise<void> {
  const { config, model, optimizer, pool, reader, data, step, best } = run;
  await pool?.checkEqual();
  const position: DataPosition = { ...reader.position(), fingerprint: data.fingerprint };
  await saveCheckpoint(
    run.dir,
    {
      ...{ step, best, modelConfig: model.config, runConfig: config, data: position },
      weights: await modelWeights(model),
      optimizer: await optimizerMoments(optimizer),
      rng: null, // every random number is a function of seed and step
      metrics: best ? { [bestKey(run)]: best.value } : {},
    },
    { keepLast: config.train.keepLast, isBest },
  );
  run.savedStep = step;
}

/** The name of the figure that the best evaluation has. */
function bestKey({ model, data }: PreparedRun): string {
  if (model instanceof SequenceClassifier) return 'bestAccuracy';
  return data.bytesPerToken === undefined ? 'bestLoss' : 'bestBpb';
}

const kept = ({ savedStep }: PreparedRun) =>
  savedStep > 0 ? `the checkpoint of step ${savedStep} is kept` : 'there is no checkpoint yet';

function workerLost(run: PreparedRun, { message }: WorkerError): WorkerError {
  return new WorkerError(
    `train: ${message} after step ${run.step}, and the run stopped there; ${kept(run)}. Go on with the same command and --resume`,
  );
}

function diverged(run: PreparedRun, what: string, step: number, lr: number): TrainingDivergedError {
  return new TrainingDivergedError(
    `train: ${what} at step ${step} (learning rate ${lr.toExponential(2)}), and the run stopped there; ${kept(run)}. ` +
      'Lower train.lr, raise train.warmupSteps or lower train.clipNorm, then start anew or pass --resume',
  );
}
