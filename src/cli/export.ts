import { existsSync } from 'node:fs';
import { cp, mkdir, writeFile } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { isSequenceConfig } from '../models/index.js';
import { exportModel, type ModelExport } from '../train/checkpoint/index.js';
import { modelCard } from '../train/modelCard.js';
import { type ModelRunInfo, type OpenedModel, openModel } from '../train/openModel.js';
import { formatBytes } from '../train/progress.js';

/** `seqmix export`. */
export async function runExport(
  reference: string,
  folder: string,
  { dtype, last }: { dtype: NonNullable<ModelExport['dtype']>; last: boolean },
): Promise<number> {
  const opened = await openModel(reference, last ? 'last' : 'best');
  if (opened.packed)
    throw new Error(
      `export: ${opened.path} is a packed model, whose ternary weights are rounded for good; export the model it was packed from, or copy the folder`,
    );
  const { bytes, parameters } = await writeModel(folder, opened, dtype);
  const { path, step, config } = opened;
  console.log(`${folder}: ${summary(parameters, step, path)} as ${dtype}, ${formatBytes(bytes)}`);
  if (!isSequenceConfig(config)) console.log(`try it: seqmix generate ${folder} --prompt "The "`);
  return 0;
}

/** What was written, and from where. */
export const summary = (parameters: number, step: number | undefined, path: string): string =>
  `${parameters.toLocaleString('en')} parameters${step === undefined ? '' : ` of step ${step}`} from ${path}`;

/**
 * A model folder with its tokenizer and a card. A card that is there already is kept: people write in it.
 * @returns bytes of its weights
 */
export async function writeModel(
  folder: string,
  { path, config, weights, packed, run, step, metrics }: OpenedModel,
  dtype: NonNullable<ModelExport['dtype']>,
): Promise<{ bytes: number; parameters: number }> {
  await mkdir(folder, { recursive: true });
  const info = run && { run: await withTokenizer(run, path, folder), step, metrics };
  await exportModel(folder, { weights, packed, config, dtype, info });
  const size = [...weights.values()].reduce((sum, { data }) => sum + data.length, 0);
  const matrices = [...(packed?.values() ?? [])];
  const bytes = matrices.reduce((sum, matrix) => sum + matrix.bytes.length + 4, size * (dtype === 'F32' ? 4 : 2));
  const parameters = matrices.reduce((sum, { shape: [rows, columns] }) => sum + rows * columns, size);
  const card = join(folder, 'README.md');
  if (!existsSync(card)) {
    const facts = { name: basename(resolve(folder)), config, parameters, dtype, run, step };
    await writeFile(card, modelCard({ ...facts, metrics }));
  }
  return { bytes, parameters };
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
