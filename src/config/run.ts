/** From what a run config says to a complete one: defaults filled in, rules across settings checked, every problem in one error. Node only. */
import type { z } from 'zod';
import { type ModelConfig, modelProblems, resolveModelConfig } from '../models/config.js';
import { isTask, taskRules, taskVocabSize } from '../train/data/tasks/index.js';
import { vocabSizeOf } from '../train/tokenizers/huggingface.js';
import { readTokenizerFile } from '../train/tokenizers/load.js';
import { isRecord, resolvePaths } from './paths.js';
import { ConfigError, type Problem, schemaProblems } from './problems.js';
import { readJsonFile } from './readJson.js';
import { type RunConfigInput, runConfigSchema, type TokenizerConfig, type TrainConfig } from './runSchema.js';
import { type Lenient, lenientParse } from './schemaWalk.js';

type Parsed = z.output<typeof runConfigSchema>;

/** A complete run config: every default there, the model inline, paths absolute. Resolving it again gives it again. */
export interface RunConfig extends Omit<Parsed, '$schema' | 'model' | 'tokenizer' | 'train' | 'output'> {
  model: ModelConfig;
  tokenizer: TokenizerConfig;
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
  const samplePrompts = train.samplePrompts ?? (isTask(data.source) ? [] : ['The ']);
  const warmupSteps = train.warmupSteps ?? Math.round(train.steps / 20);
  const decaySteps = train.schedule === 'wsd' ? (train.decaySteps ?? Math.ceil(train.steps / 5)) : undefined;
  return {
    ...config,
    model: resolveModelConfig((raw as RunConfigInput).model),
    tokenizer: config.tokenizer ?? (tokenizerFor(data.source) as TokenizerConfig),
    train: { ...train, samplePrompts, warmupSteps, ...(decaySteps && { decaySteps }) },
    output: { dir: output.dir ?? `runs/${config.name}` },
  };
}

/** The tokenizer of a config that names none. */
const tokenizerFor = (source: Lenient<Parsed['data']['source']>): Lenient<TokenizerConfig> =>
  isTask(source) ? { type: 'ids', vocabSize: taskVocabSize(source) } : { type: 'bytes' };

function runProblems(raw: unknown): Problem[] {
  const model = isRecord(raw) ? raw.model : undefined;
  const shell = isRecord(model) ? { ...(raw as object), model: {} } : raw; // the model has rules of its own
  const problems = [
    ...schemaProblems(runConfigSchema, shell),
    ...(isRecord(model) ? modelProblems(model, ['model']) : []),
  ];
  const config = lenientParse(runConfigSchema, raw);
  if (!config) return problems;
  const { source } = config.data ?? {};
  const absent = (raw as Partial<RunConfigInput>).tokenizer === undefined;
  const tokenizer = absent && source ? tokenizerFor(source) : config.tokenizer;
  return [
    ...problems,
    ...stepRules(config),
    ...workerRules(config),
    ...dataRules(config),
    ...taskProblems(config),
    ...vocabularyRules(config, tokenizer),
  ];
}

type LenientRun = Lenient<Parsed>;

/** Parts that are undefined are wrong by themselves and skipped, here and below. */
function stepRules({ train = {} }: LenientRun): Problem[] {
  const { steps, schedule, warmupSteps = 0, decaySteps } = train;
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
  return problems;
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
  if (data.valFraction === 0 && train.evalEvery && !(data.source && isTask(data.source)))
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
