/** Run config files. Node only. */
import { existsSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { applyOverride, type Override, parseOverrides } from './overrides.js';
import { isRecord, resolvePaths } from './paths.js';
import type { Problem } from './problems.js';
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

/** The file itself, or the one of the package that a relative path names. */
export function configFile(path: string): string {
  const packaged = resolve(packageRoot, path);
  return !existsSync(path) && existsSync(packaged) ? packaged : path;
}
