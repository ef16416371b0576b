import { resolve } from 'node:path';
import { useBackend } from '../backend/useBackend.js';
import { packModel } from '../models/index.js';
import { openModel } from '../train/openModel.js';
import { formatBytes } from '../train/progress.js';
import { summary, writeModel } from './export.js';

export interface PackFlags {
  /** Of a ternary weight in the file. */
  bits: '2' | '1.6';
  /** Of the other weights in the file; in memory they are float32. */
  dtype: 'F32' | 'BF16' | 'F16';
  last: boolean;
}

/** `seqmix pack`. */
export async function runPack(reference: string, folder: string, { bits, dtype, last }: PackFlags): Promise<number> {
  const opened = await openModel(reference, last ? 'last' : 'best');
  const { path, config, weights, step } = opened;
  if (config.modelType !== 'causal_lm')
    throw new Error(`pack: ${path} is a ${config.modelType}; only language models can be packed`);
  if (resolve(folder) === resolve(path))
    throw new Error(
      `pack: ${folder} holds the weights in full precision, which packing cannot give back; name another folder`,
    );
  await useBackend('wasm');
  const model = packModel({ config, weights }, bits === '2' ? '2bit' : 'base3');
  const { bytes, parameters } = await writeModel(folder, { ...opened, ...model }, dtype);
  console.log(
    `${folder}: ${summary(parameters, step, path)}, packed to ${formatBytes(bytes)} (float32: ${formatBytes(4 * parameters)})`,
  );
  console.log(`try it: seqmix generate ${folder} --prompt "The "`);
  return 0;
}
