/** Finds a trained model by name or path: a name in `pretrained/`, a run's folder, a checkpoint or an exported model. Node only. */
import { existsSync, readdirSync } from 'node:fs';
import { isAbsolute, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { RunConfig } from '../config/index.js';
import { readJsonFile } from '../config/readJson.js';
import { type Family, familyOf } from '../models/adapters/index.js';
import {
  type AnyModelConfig,
  CausalLM,
  createAnyModel,
  isSequenceConfig,
  type NamedArrays,
  type PackedArrays,
  resolveAnyModelConfig,
  type SequenceClassifier,
  type SequenceRegressor,
} from '../models/index.js';
import { bestCheckpoint, latestCheckpoint, loadCheckpoint, loadModelDir } from './checkpoint/index.js';
import { ByteTokenizer, loadTokenizer, type Tokenizer } from './tokenizers/index.js';

/** What a run recorded beside its model, as far as scoring and sampling need it. */
export type ModelRunInfo = Pick<RunConfig, 'name' | 'seed' | 'tokenizer' | 'data' | 'train'>;

export interface OpenedModel {
  /** The folder the weights came from. */
  path: string;
  config: AnyModelConfig;
  weights: NamedArrays;
  /** Ternary matrices of a packed model; `weights` are the others. */
  packed?: PackedArrays;
  /** Absent in published models of other programs. */
  run: ModelRunInfo | undefined;
  /** Updates done, where known. */
  step: number | undefined;
  /** Figures recorded with the model. */
  metrics: Record<string, number>;
}

const pretrained = fileURLToPath(new URL('../../pretrained/', import.meta.url));

/** Names of the models that come with the package. */
export function pretrainedNames(): string[] {
  if (!existsSync(pretrained)) return [];
  const folders = readdirSync(pretrained, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  return folders.map(({ name }) => name);
}

/**
 * Loads weights and config; every file of ours is verified.
 * @param reference a name in `pretrained/`, or a folder: of a run, a checkpoint, an exported model, or a published model (`fla-hub`, Kimi Linear, hybrids of Qwen3, MatMul-free)
 *   (`config.json` and `model.safetensors`, whole or in shards)
 * @param prefer which checkpoint of a run: `best` (default, else the last) or `last`
 * @throws Error naming what was looked for and what there is; CheckpointError for damaged files
 */
export async function openModel(reference: string, prefer: 'best' | 'last' = 'best'): Promise<OpenedModel> {
  const path = await locateModel(reference, prefer);
  const source = join(path, 'config.json');
  if (existsSync(join(path, 'state.json'))) {
    const { weights, modelConfig, runConfig, step, metrics } = await loadCheckpoint(path);
    return {
      path,
      weights,
      config: resolveAnyModelConfig(modelConfig, source),
      run: runConfig as RunConfig,
      step,
      metrics,
    };
  }
  const family = publishedFamily(path);
  const { weights, packed, config, info } = await loadModelDir(path, { checksums: family ? 'optional' : 'required' });
  if (family) {
    const own = family.config(config, source);
    return { path, weights: family.weights(weights, own), config: own, run: undefined, step: undefined, metrics: {} };
  }
  const { run, step, metrics = {} } = (info ?? {}) as Partial<OpenedModel>;
  return {
    path,
    weights,
    ...(packed && { packed }),
    config: resolveAnyModelConfig(config, source),
    run,
    step,
    metrics,
  };
}

/** Of a published model, which has no checksums of ours; undefined for a model of ours. */
function publishedFamily(folder: string): Family | undefined {
  if (existsSync(join(folder, 'checksums.json')) || !existsSync(join(folder, 'config.json'))) return undefined;
  return familyOf(readJsonFile(join(folder, 'config.json'), 'the config of a model'));
}

/** The folder that holds the files of `reference`. @throws Error naming what was looked for and what there is */
export async function locateModel(reference: string, prefer: 'best' | 'last' = 'best'): Promise<string> {
  for (const folder of [reference, join(pretrained, reference)]) {
    if (MODEL_FILES.some((name) => existsSync(join(folder, name)))) return folder;
    if (!existsSync(join(folder, 'checkpoints'))) continue;
    const best = prefer === 'best' ? await bestCheckpoint(folder) : undefined;
    const path = best ?? (await latestCheckpoint(folder));
    if (path) return path;
  }
  const names = pretrainedNames().join(', ') || 'none';
  throw new Error(
    `no model "${reference}": expected the folder of a run with a checkpoint, of a checkpoint or of an exported model, or a name in pretrained/ (there: ${names})`,
  );
}

const MODEL_FILES = ['state.json', 'checksums.json', 'model.safetensors', 'model.safetensors.index.json'];

/** The language model with its weights on the backend in use; the caller disposes of it. @throws Error for a model of another kind */
export function createModel({ config, weights, packed }: Pick<OpenedModel, 'config' | 'weights' | 'packed'>): CausalLM {
  if (isSequenceConfig(config)) throw noLanguageModel(config);
  return new CausalLM(config, { weights, packed });
}

const noLanguageModel = ({ modelType }: { modelType: string }) =>
  new Error(
    `expected a language model, got a ${modelType}, which tells of whole sequences: see seqmix eval and predict, or createSequenceModel`,
  );

/** The classifier or regressor with its weights on the backend in use; the caller disposes of it. @throws Error for a language model */
export function createSequenceModel({
  config,
  weights,
}: Pick<OpenedModel, 'config' | 'weights'>): SequenceClassifier | SequenceRegressor {
  if (!isSequenceConfig(config))
    throw new Error('expected a classifier or regressor, got a language model: use createModel');
  return createAnyModel(config, { weights }) as SequenceClassifier | SequenceRegressor;
}

/** The tokenizer the model was trained with. @throws Error when that is not known */
export function tokenizerOf({ path, config, run }: Pick<OpenedModel, 'path' | 'config' | 'run'>): Tokenizer {
  if (isSequenceConfig(config)) throw noLanguageModel(config);
  const tokenizer = run?.tokenizer;
  if (tokenizer) {
    if (tokenizer.type !== 'huggingface' || isAbsolute(tokenizer.file)) return loadTokenizer(tokenizer);
    return loadTokenizer({ ...tokenizer, file: join(path, tokenizer.file) }); // exported beside the model
  }
  const beside = join(path, 'tokenizer.json');
  if (existsSync(beside)) return loadTokenizer({ type: 'huggingface', file: beside });
  if (config.vocabSize === 256) return new ByteTokenizer();
  throw new Error(`${path}: its tokenizer is not recorded; put the tokenizer.json of the model beside its weights`);
}
