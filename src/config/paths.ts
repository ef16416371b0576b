/** Paths inside run configs: relative to the file they stand in, absolute once it is read. Node only. */
import { existsSync } from 'node:fs';
import { isAbsolute, join } from 'node:path';
import { escapePath } from 'tinyglobby';

/** A copy of a raw run config, or of a part of one, with absolute paths for model, tokenizer and data. What is not a path stays. */
export function resolvePaths(raw: unknown, folder: string): unknown {
  const config = structuredClone(raw);
  if (!isRecord(config)) return config;
  const { tokenizer, data } = config;
  if (typeof config.model === 'string') config.model = pathFrom(folder, config.model);
  if (isRecord(tokenizer) && typeof tokenizer.file === 'string') tokenizer.file = pathFrom(folder, tokenizer.file);
  const source = isRecord(data) ? data.source : undefined;
  if (isRecord(source) && Array.isArray(source.files))
    source.files = source.files.map((file: unknown) => (typeof file === 'string' ? globFrom(folder, file) : file));
  return config;
}

/** An object that is no list. */
export const isRecord = (x: unknown): x is Record<string, unknown> =>
  typeof x === 'object' && x !== null && !Array.isArray(x);

const pathFrom = (folder: string, path: string) => (path === '' || isAbsolute(path) ? path : join(folder, path));

/** A path or glob seen from `folder`, whose own characters mean themselves. */
function globFrom(folder: string, pattern: string): string {
  const path = pathFrom(folder, pattern);
  if (path === pattern || existsSync(path)) return path;
  return `${escapePath(folder.replaceAll('\\', '/'))}/${pattern}`;
}
