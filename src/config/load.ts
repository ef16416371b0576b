/** Run config files. Node only. */
import { existsSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { familyOf } from '../models/adapters/index.js';
import { type AnyModelConfig, resolveAnyModelConfig } from '../models/anyConfig.js';
import { applyOverride, type Override, parseOverrides } from './overrides.js';
import { isRecord, resolvePaths } from './paths.js';
import { ConfigError, type Problem } from './problems.js';
import { readJsonFile } from './readJson.js';
import { completeRunConfig, inlineModel, type RunConfig } from './run.js';

const packageRoot = fileURLToPath(new URL('../../', import.meta.url));

/**
 * Reads a run config. Paths in the file are relative to the file, paths in overrides to the working directory.
 * @param path the file; one that is not there is looked for in the package, so `configs/runs/quickstart.json` works everywhere
 * @param overrides settings that come before the file's: `--train.lr=3e-4`, `model.numLayers=2`, `train.samplePrompts=["A"]`
 * @throws ConfigError listing every unknown key, wrong type and combination that cannot be
 */
export function loadRunConfig(path: string, overrides: readonly string[] = []): RunConfig {
  const file = configFile(path);
  const settings = parseOverrides(overrides);
  const raw = resolvePaths(readJsonFile(file, 'a run config'), dirname(resolve(file)));
  if (!isRecord(raw)) return completeRunConfig(raw, file, []);
  const whole = ({ path }: Override) => path.length === 1; // first, as `model.numLayers` may mean another model's
  const apply = (list: readonly Override[]) =>
    list.flatMap((setting): Problem | Problem[] => applyOverride(raw, setting, process.cwd()) ?? []);
  const problems = apply(settings.filter(whole));
  problems.push(...inlineModel(raw));
  problems.push(...apply(settings.filter((setting) => !whole(setting))));
  return completeRunConfig(raw, file, problems);
}

/**
 * The model of a model config, run config or published config, e.g. to describe it.
 * @param overrides settings that come before the file's: `--model.numLayers=2`; of a run config also others
 * @throws ConfigError as `loadRunConfig` does
 */
export function loadModelConfig(path: string, overrides: readonly string[] = []): AnyModelConfig {
  const file = configFile(path);
  const model = readJsonFile(file, 'a model or run config');
  if (isRecord(model) && ('train' in model || 'data' in model)) return loadRunConfig(file, overrides).model;
  const raw = { model: familyOf(model)?.config(model, file) ?? model };
  const problems = parseOverrides(overrides).flatMap((setting): Problem | Problem[] => {
    if (setting.path[0] === 'model') return applyOverride(raw, setting, process.cwd()) ?? [];
    return { path: setting.path.join('.'), message: 'only settings of the model apply to a model config' };
  });
  if (problems.length) throw new ConfigError(file, problems);
  return resolveAnyModelConfig(raw.model, file);
}

/** The file itself, or the one of the package that a relative path names. */
export function configFile(path: string): string {
  const packaged = resolve(packageRoot, path);
  return !existsSync(path) && existsSync(packaged) ? packaged : path;
}
