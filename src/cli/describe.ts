import { statSync } from 'node:fs';
import { join } from 'node:path';
import { configFile, loadModelConfig } from '../config/index.js';
import { describe, formatDescription, type ModelConfig } from '../models/index.js';
import { locateModel } from '../train/openModel.js';

/** `seqmix describe`: no backend is started and no weight is read. */
export async function runDescribe(
  reference: string,
  { json, overrides }: { json: boolean; overrides: string[] },
): Promise<number> {
  const description = describe(await modelConfigOf(reference, overrides));
  console.log(json ? JSON.stringify(description, null, 2) : formatDescription(description));
  return 0;
}

async function modelConfigOf(reference: string, overrides: string[]): Promise<ModelConfig> {
  const file = configFile(reference);
  const isFile = statSync(file, { throwIfNoEntry: false })?.isFile() || reference.endsWith('.json');
  return loadModelConfig(isFile ? file : join(await locateModel(reference), 'config.json'), overrides);
}
