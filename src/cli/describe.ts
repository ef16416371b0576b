import { statSync } from 'node:fs';
import { join } from 'node:path';
import { configFile, loadModelConfig } from '../config/index.js';
import {
  type AnyModelConfig,
  describe,
  describeSequence,
  formatDescription,
  formatSequenceDescription,
} from '../models/index.js';
import { locateModel } from '../train/openModel.js';

/** `seqmix describe`: no backend is started and no weight is read. */
export async function runDescribe(
  reference: string,
  { json, overrides }: { json: boolean; overrides: string[] },
): Promise<number> {
  const config = await modelConfigOf(reference, overrides);
  if (json) console.log(JSON.stringify(described(config), null, 2));
  else if (config.modelType === 'causal_lm') console.log(formatDescription(describe(config)));
  else console.log(formatSequenceDescription(describeSequence(config)));
  return 0;
}

const described = (config: AnyModelConfig) =>
  config.modelType === 'causal_lm' ? describe(config) : describeSequence(config);

async function modelConfigOf(reference: string, overrides: string[]): Promise<AnyModelConfig> {
  const file = configFile(reference);
  const isFile = statSync(file, { throwIfNoEntry: false })?.isFile() || reference.endsWith('.json');
  return loadModelConfig(isFile ? file : join(await locateModel(reference), 'config.json'), overrides);
}
