import { existsSync } from 'node:fs';
import { cp, mkdir, writeFile } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { isSequenceConfig } from '../models/index.js';
import { exportModel, type ModelExport } from '../train/checkpoint/index.js';
import { modelCard } from '../train/modelCard.js';
import { type ModelRunInfo, openModel } from '../train/openModel.js';
import { formatBytes } from '../train/progress.js';

/** `seqmix export`. A card that is there already is kept: people write in it. */
export async function runExport(
  reference: string,
  folder: string,
  { dtype, last }: { dtype: NonNullable<ModelExport['dtype']>; last: boolean },
): Promise<number> {
  const { path, config, weights, run, step, metrics } = await openModel(reference, last ? 'last' : 'best');
  await mkdir(folder, { recursive: true });
  const info = run && { run: await withTokenizer(run, path, folder), step, metrics };
  await exportModel(folder, { weights, config, dtype, info });
  const size = [...weights.values()].reduce((sum, { data }) => sum + data.length, 0);
  const bytes = size * (dtype === 'F32' ? 4 : 2);
  const card = join(folder, 'README.md');
  if (!existsSync(card)) {
    const facts = { name: basename(resolve(folder)), config, parameters: size, dtype, run, step };
    await writeFile(card, modelCard({ ...facts, metrics }));
  }
  const at = step === undefined ? '' : ` of step ${step}`;
  console.log(
    `${folder}: ${size.toLocaleString('en')} parameters${at} from ${path} as ${dtype}, ${formatBytes(bytes)}`,
  );
  if (!isSequenceConfig(config)) console.log(`try it: seqmix generate ${folder} --prompt "The "`);
  return 0;
}

/** What is worth keeping of a run; a tokenizer file is copied beside the weights. */
async function withTokenizer(
  { name, seed, tokenizer, data, train }: ModelRunInfo,
  path: string,
  folder: string,
): Promise<ModelRunInfo> {
  const kept = { name, seed, tokenizer, data, train };
  if (tokenizer?.type !== 'huggingface') return kept;
  const from = join(path, tokenizer.file);
  const source = existsSync(tokenizer.file) ? tokenizer.file : from; // a run's path is absolute, an export's is beside it
  await cp(source, join(folder, 'tokenizer.json'));
  const config = join(dirname(source), 'tokenizer_config.json');
  if (existsSync(config)) await cp(config, join(folder, 'tokenizer_config.json'));
  return { ...kept, tokenizer: { ...tokenizer, file: 'tokenizer.json' } };
}
