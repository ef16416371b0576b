/** From what a run config says to a complete one: defaults filled in, rules across settings checked, every problem in one error. Node only. */
import type { z } from 'zod';
import { type AnyModelConfig, anyModelProblems, resolveAnyModelConfig } from '../models/anyConfig.js';
import { TIMED_MIXERS } from '../models/mixers/timed.js';
import { isSequenceConfig } from '../models/sequence/config.js';
import { modelFaults } from '../train/data/labelled/fit.js';
import { labelledRules, sourceKind } from '../train/data/labelled/kinds.js';
import { isLabelled, type LabelledSource } from '../train/data/labelled/schema.js';
import { isTask, taskRules, taskVocabSize } from '../train/data/tasks/index.js';
import { vocabSizeOf } from '../train/tokenizers/huggingface.js';
import { readTokenizerFile } from '../train/tokenizers/load.js';
import { isRecord, resolvePaths } from './paths.js';
import { ConfigError, type Problem, quote, schemaProblems } from './problems.js';
import { readJsonFile } from './readJson.js';
import { type RunConfigInput, runConfigSchema, type TokenizerConfig, type TrainConfig } from './runSchema.js';
import { type Lenient, lenientParse } from './schemaWalk.js';

type Parsed = z.output<typeof runConfigSchema>;

/** A complete run config: every default there, the model inline, paths absolute. Resolving it again gives it again. */
export interface RunConfig extends Omit<Parsed, '$schema' | 'model' | 'tokenizer' | 'train' | 'output'> {
  model: AnyModelConfig;
  /** Absent where the data are no tokens of a text. */
  tokenizer?: TokenizerConfig;
  train: TrainConfig;
  /** Folder of the run, relative to the working directory. */
  output: { dir: string };
}

/**
 * Completes a run config given as an object.
 * @param source where it came from, for the error
 * @param folder what its paths are relative to; default the working directory
 * @throws ConfigError listing every unknown key, wrong type and combination that cannot be
 */
export function resolveRunConfig(
  raw: RunConfigInput,
  { source = 'run config', folder = process.cwd() }: { source?: string; folder?: string } = {},
): RunConfig {
  const config = resolvePaths(raw, folder);
  return completeRunConfig(config, source, inlineModel(config));
}

/** Puts the content of a model file in its place, in a raw run config with absolute paths. @returns why it cannot be read */
export function inlineModel(raw: unknown): Problem[] {
  if (!isRecord(raw) || typeof raw.model !== 'string' || raw.model === '') return [];
  try {
    raw.model = readJsonFile(raw.model, 'a model config');
    return [];
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return error.problems.map(({ message }) => ({ path: 'model', message: `${error.source}: ${message}` }));
  }
}

/** The last step of reading a config whose paths are absolute and whose model is inline; `found` are problems known before. */
export function completeRunConfig(raw: unknown, source: string, found: readonly Problem[]): RunConfig {
  const problems = [...found, ...runProblems(raw)];
  if (problems.length) throw new ConfigError(source, problems);
  const { $schema: _, ...config } = runConfigSchema.parse(raw);
  const { train, output, data } = config;
  const isText = !isTask(data.source) && !isLabelled(data.source);
  const samplePrompts = train.samplePrompts ?? (isText ? ['The '] : []);
  const tokenizer = config.tokenizer ?? (tokenizerFor(data.source) as TokenizerConfig | undefined);
  const warmupSteps = train.warmupSteps ?? defaultWarmup(train.steps);
  const decaySteps = train.schedule === 'wsd' ? (train.decaySteps ?? Math.ceil(train.steps / 5)) : undefined;
  return {
    ...config,
    model: resolveAnyModelConfig((raw as RunConfigInput).model),
    ...(tokenizer && { tokenizer }),
    train: { ...train, samplePrompts, warmupSteps, ...(decaySteps && { decaySteps }) },
    output: { dir: output.dir ?? `runs/${config.name}` },
  };
}

/** The tokenizer of a config that names none. */
function tokenizerFor(source: Lenient<Parsed['data']['source']>): Lenient<TokenizerConfig> | undefined {
  if (isLabelled(source)) return undefined;
  return isTask(source) ? { type: 'ids', vocabSize: taskVocabSize(source) } : { type: 'bytes' };
}

function runProblems(raw: unknown): Problem[] {
  const model = isRecord(raw) ? raw.model : undefined;
  const shell = isRecord(model) ? { ...(raw as object), model: {} } : raw; // the model has rules of its own
  const problems = [
    ...schemaProblems(runConfigSchema, shell),
    ...(isRecord(model) ? anyModelProblems(model, ['model']) : []),
  ];
  const config = lenientParse(runConfigSchema, raw);
  if (!config) return problems;
  const { source } = config.data ?? {};
  const absent = (raw as Partial<RunConfigInput>).tokenizer === undefined;
  const tokenizer = absent && source ? tokenizerFor(source) : config.tokenizer;
  return [
    ...problems,
    ...stepRules(config),
    ...packedRules(model),
    ...workerRules(config),
    ...dataRules(config),
    ...taskProblems(config),
    ...labelledProblems(config),
    ...(isSequenceConfig(config.model) ? [] : vocabularyRules(config, tokenizer)),
  ];
}

type LenientRun = Lenient<Parsed>;

const defaultWarmup = (steps: number) => Math.round(steps / 20);

/** Parts that are undefined are wrong by themselves and skipped, here and below. */
function stepRules({ train = {} }: LenientRun): Problem[] {
  const { steps, schedule, warmupSteps = 0, decaySteps, halveAt } = train;
  const problems: Problem[] = [];
  if (steps && warmupSteps > steps)
    problems.push({ path: 'train.warmupSteps', message: `must not exceed steps ${steps}, got ${warmupSteps}` });
  if (decaySteps && schedule && schedule !== 'wsd')
    problems.push({ path: 'train.decaySteps', message: `is for the schedule "wsd" only, got "${schedule}"` });
  else if (steps && decaySteps && warmupSteps <= steps && warmupSteps + decaySteps > steps)
    problems.push({
      path: 'train.decaySteps',
      message: `warm-up and decay must fit into steps ${steps}, got ${warmupSteps} + ${decaySteps}`,
    });
  const warmUp = train.warmupSteps ?? defaultWarmup(steps ?? 0);
  if (steps && halveAt && halveAt * steps < warmUp)
    problems.push({
      path: 'train.halveAt',
      message: `must not be within the warm-up of ${warmUp} of ${steps} steps, got ${halveAt}`,
    });
  return problems;
}

function packedRules(model: unknown): Problem[] {
  const packed = isRecord(model) ? model.packed : undefined;
  if (packed === undefined) return [];
  const message = `the ternary weights of a packed model cannot be trained, got ${quote(packed as string)}; leave it out to train such a model from the start`;
  return [{ path: 'model.packed', message }];
}

function workerRules({ backend = {}, train = {} }: LenientRun): Problem[] {
  const { workers = 1, batchSize = workers, accumulate = 1 } = train;
  if (workers === 1) return [];
  const path = 'train.workers';
  const problems: Problem[] = [];
  if (backend.name === 'webgpu' || backend.name === 'tensorflow')
    problems.push({ path, message: `must be 1 on ${backend.name}, which is parallel by itself, got ${workers}` });
  if (workers > batchSize * accumulate)
    problems.push({
      path,
      message: `must not exceed the rows of an update (batchSize ${batchSize} x accumulate ${accumulate}), got ${workers}`,
    });
  return problems;
}

function dataRules({ data = {}, train = {} }: LenientRun): Problem[] {
  const problems: Problem[] = [];
  const examples = data.source && 'valExamples' in data.source;
  const files = data.source && 'valFiles' in data.source && data.source.valFiles;
  if (data.valFraction === 0 && train.evalEvery && !examples && !files)
    problems.push({
      path: 'train.evalEvery',
      message: `there is no validation part (data.valFraction is 0), so it must be 0, got ${train.evalEvery}`,
    });
  if (train.samplePrompts?.length === 0 && train.sampleEvery)
    problems.push({
      path: 'train.samplePrompts',
      message: `expected a text to continue, as sampleEvery is ${train.sampleEvery}, got an empty list`,
    });
  return problems;
}

/** Rules of generated tasks. */
function taskProblems({ data = {}, train = {}, tokenizer }: LenientRun): Problem[] {
  const { source, documents } = data;
  if (!source || !isTask(source)) return [];
  const problems = taskRules(source, train.seqLen).map(([key, message]) => ({ path: `data.source.${key}`, message }));
  if (documents) problems.push({ path: 'data.documents', message: `is for texts, got "${documents}"` });
  if (tokenizer?.type && tokenizer.type !== 'ids')
    problems.push({ path: 'tokenizer', message: `a task has ids of its own: leave it out, got "${tokenizer.type}"` });
  return problems;
}

/** Rules of labelled sequences and of the models that are for them. */
function labelledProblems({ data = {}, train = {}, model, tokenizer }: LenientRun): Problem[] {
  const { source, documents } = data;
  const problem = (path: string, message: string): Problem => ({ path, message });
  if (!source?.type) return [];
  if (!isLabelled(source))
    return isSequenceConfig(model)
      ? [problem('data.source.type', `a ${model.modelType} needs labelled sequences, got "${source.type}"`)]
      : [];
  const problems = labelledRules(source).map(([key, message]) => problem(`data.source.${key}`, message));
  if (documents) problems.push(problem('data.documents', `is for texts, got "${documents}"`));
  if (tokenizer) problems.push(problem('tokenizer', `is for texts, got ${quote(tokenizer.type)}; leave it out`));
  if (train.samplePrompts?.length || train.sampleEvery)
    problems.push(
      problem('train.samplePrompts', 'only language models give samples: leave out samplePrompts and sampleEvery'),
    );
  const { testFraction = 0 } = source as { testFraction?: number };
  if ((data.valFraction ?? 0) + testFraction >= 1)
    problems.push(
      problem('data.source.testFraction', `leaves nothing for training beside valFraction ${data.valFraction}`),
    );
  return typeof model === 'object' ? [...problems, ...fitProblems(model, source)] : problems;
}

/** The model and what is known of the examples before they are read. */
function fitProblems(
  model: Exclude<LenientRun['model'], string | undefined>,
  source: Lenient<LabelledSource>,
): Problem[] {
  const kind = sourceKind(source);
  const faults = kind
    ? modelFaults(model, kind)
    : isSequenceConfig(model)
      ? []
      : [['modelType', 'labelled sequences need "sequence_classifier" or "sequence_regressor"']];
  const mixers = 'mixers' in model ? model.mixers : undefined;
  const types = mixers?.map((mixer) => (typeof mixer === 'string' ? mixer : mixer?.type));
  if (kind?.timed && types && !types.some((type) => type === undefined || TIMED_MIXERS.includes(type)))
    faults.push([
      'mixers',
      `samples are at irregular times (data.source.jitter), which only ${TIMED_MIXERS.join(', ')} can tell`,
    ]);
  return faults.map(([key, message]) => ({ path: `model.${key}`, message }));
}

/** @param tokenizer undefined when it is wrong by itself */
function vocabularyRules({ model }: LenientRun, tokenizer: Lenient<TokenizerConfig> | undefined): Problem[] {
  const vocabSize = typeof model === 'object' ? model.vocabSize : undefined;
  try {
    const ids = tokenizer && idsOf(tokenizer);
    if (!vocabSize || !ids || ids <= vocabSize) return [];
    return [
      { path: 'model.vocabSize', message: `must be at least the tokenizer's ${ids} token ids, got ${vocabSize}` },
    ];
  } catch (error) {
    return [{ path: 'tokenizer.file', message: (error as Error).message }];
  }
}

function idsOf(tokenizer: Lenient<TokenizerConfig>): number | undefined {
  if (tokenizer.type === 'ids') return tokenizer.vocabSize;
  if (tokenizer.type !== 'huggingface') return tokenizer.type && 256;
  return tokenizer.file ? vocabSizeOf(readTokenizerFile(tokenizer.file).json) : undefined;
}
