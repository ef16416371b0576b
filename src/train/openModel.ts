/** Finds a trained model by name or path: a name in `pretrained/`, a run's folder, a checkpoint or an exported model. Node only. */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { RunConfig } from '../config/index.js';
import { type ModelConfig, resolveModelConfig } from '../models/index.js';
import { bestCheckpoint, latestCheckpoint, loadCheckpoint, loadModelDir, type Weights } from './checkpoint/index.js';

/** What a run recorded beside its model, as far as scoring and sampling need it. */
export type ModelRunInfo = Pick<RunConfig, 'name' | 'seed' | 'tokenizer' | 'data' | 'train'>;

export interface OpenedModel {
  /** The folder the weights came from. */
  path: string;
  config: ModelConfig;
  weights: Weights;
  /** Absent only in model folders of other programs. */
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
  return readdirSync(pretrained, { withFileTypes: true })
    .filter((e) => e.isDirectory())
    .map((e) => e.name);
}

/**
 * Loads weights and config; every file is verified.
 * @param reference a name in `pretrained/` or a folder
 * @param prefer which checkpoint of a run: `best` (default, else the last) or `last`
 * @throws Error naming what was looked for and what there is; CheckpointError for damaged files
 */
export async function openModel(reference: string, prefer: 'best' | 'last' = 'best'): Promise<OpenedModel> {
  const path = await locate(reference, prefer);
  if (existsSync(join(path, 'state.json'))) {
    const { weights, modelConfig, runConfig, step, metrics } = await loadCheckpoint(path);
    return {
      path,
      weights,
      config: resolveModelConfig(modelConfig, join(path, 'config.json')),
      run: runConfig as RunConfig,
      step,
      metrics,
    };
  }
  const { weights, config, info } = await loadModelDir(path);
  const { run, step, metrics } = (info ?? {}) as Partial<OpenedModel>;
  return {
    path,
    weights,
    config: resolveModelConfig(config, join(path, 'config.json')),
    run,
    step,
    metrics: metrics ?? {},
  };
}

/** The folder that holds the files of `reference`. */
export async function locate(reference: string, prefer: 'best' | 'last' = 'best'): Promise<string> {
  for (const folder of [reference, join(pretrained, reference)]) {
    if (
      existsSync(join(folder, 'state.json')) ||
      existsSync(join(folder, 'checksums.json')) ||
      existsSync(join(folder, 'model.safetensors'))
    )
      return folder;
    if (!existsSync(join(folder, 'checkpoints'))) continue;
    const best = prefer === 'best' ? await bestCheckpoint(folder) : undefined;
    const path = best ?? (await latestCheckpoint(folder));
    if (path) return path;
  }
  const names = pretrainedNames().join(', ') || 'none';
  throw new Error(
    `no model "${reference}": expected the folder of a run, a checkpoint or an exported model, or one of the names in pretrained/ (${names})`,
  );
}
