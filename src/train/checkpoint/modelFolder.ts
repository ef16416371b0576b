/** A model without its training state: `config.json`, `model.safetensors`, optional `info.json`, and `checksums.json` over them. Node only. */

import { existsSync } from 'node:fs';
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { readShardIndex, SafetensorsError } from '../../formats/safetensors.js';
import type { PackedMatrix } from '../../formats/ternary.js';
import { CheckpointError } from './errors.js';
import { type FileSum, replaceFile } from './files.js';
import { decodePacked, packedTensors, TERNARY } from './packed.js';
import { sealJson } from './sealedJson.js';
import { readFileOf, readSealed, readVerified } from './verified.js';
import { decodeWeights, encodeWeights, type Weights } from './weights.js';

const WEIGHTS = 'model.safetensors';
const INDEX = 'model.safetensors.index.json';
const CONFIG = 'config.json';
const INFO = 'info.json';
const SUMS = 'checksums.json';

export interface ModelExport {
  weights: ReadonlyMap<string, { shape: readonly number[]; data: Float32Array }>;
  /** Ternary matrices of a packed model, all of one packing, whose config must have it as `packed`; `weights` are the others. */
  packed?: ReadonlyMap<string, PackedMatrix>;
  /** The complete model config. */
  config: object;
  /** Element type of the file (default BF16, rounded to nearest even). */
  dtype?: 'F32' | 'BF16' | 'F16';
  /** Anything worth keeping with the model: tokenizer, data, figures. Plain JSON. */
  info?: object;
}

export interface LoadedModel {
  /** Always float32. */
  weights: Weights;
  /** Of a packed model (`config.packed`): its ternary matrices, in the packing of the file. */
  packed: Map<string, PackedMatrix> | undefined;
  config: Record<string, unknown>;
  /** What was given as `info` at the export, or undefined. */
  info: Record<string, unknown> | undefined;
}

/** Writes a model folder; files of the same names are replaced, each in one step. */
export async function exportModel(
  folder: string,
  { weights, packed, config, dtype = 'BF16', info }: ModelExport,
): Promise<void> {
  const json = (value: object) => `${JSON.stringify(value, null, 2)}\n`;
  const encoded = packed
    ? encodeWeights(weights, dtype, { [TERNARY]: (config as { packed: string }).packed }, packedTensors(packed))
    : encodeWeights(weights, dtype);
  await mkdir(folder, { recursive: true });
  const files: Record<string, FileSum> = {};
  files[WEIGHTS] = await replaceFile(join(folder, WEIGHTS), encoded);
  files[CONFIG] = await replaceFile(join(folder, CONFIG), json(config));
  if (info) files[INFO] = await replaceFile(join(folder, INFO), json(info));
  else await rm(join(folder, INFO), { force: true });
  await replaceFile(join(folder, SUMS), sealJson({ files })); // last: until then the folder does not load
}

/**
 * Loads a model folder: ours, or one of another program with `model.safetensors` or its shards.
 * @param checksums `required` (default): every file must be as recorded in `checksums.json`. `optional`: a folder without
 *   that file is taken as it is; needed for models of other programs.
 * @throws CheckpointError naming the file, what was expected and what came
 */
export async function loadModelDir(
  folder: string,
  { checksums = 'required' }: { checksums?: 'required' | 'optional' } = {},
): Promise<LoadedModel> {
  if (!existsSync(join(folder, SUMS))) {
    if (checksums === 'optional') return loadUnchecked(folder);
    throw new CheckpointError(
      `${folder}: expected a file ${SUMS}, found none; pass { checksums: 'optional' } to load a model of another program`,
    );
  }
  const { files } = await readSealed(folder, SUMS);
  const hasInfo = Object.hasOwn(files as object, INFO);
  const bytes = await readVerified(folder, hasInfo ? [WEIGHTS, CONFIG, INFO] : [WEIGHTS, CONFIG], files);
  const info = hasInfo ? parse(folder, INFO, bytes[INFO]) : undefined;
  const config = parse(folder, CONFIG, bytes[CONFIG]);
  const packed = config.packed;
  if (packed === undefined) return { weights: decodeWeights(bytes[WEIGHTS]), packed, config, info };
  return { ...decodePacked(`${folder}: ${WEIGHTS}`, bytes[WEIGHTS], packed), config, info };
}

async function loadUnchecked(folder: string): Promise<LoadedModel> {
  const config = parse(folder, CONFIG, await readFileOf(folder, CONFIG));
  return { weights: await readAllShards(folder), packed: undefined, config, info: undefined };
}

/** The tensors of `model.safetensors`, or of the shards its index names: each tensor in its shard, and no tensor beside the index. */
async function readAllShards(folder: string): Promise<Weights> {
  if (!existsSync(join(folder, INDEX))) return readShard(folder, WEIGHTS);
  const index = readShardIndex(new TextDecoder().decode(await readFileOf(folder, INDEX)));
  const all: Weights = new Map();
  for (const shard of new Set(index.values())) {
    for (const [name, weight] of await readShard(folder, shard)) {
      if (index.get(name) !== shard)
        throw new CheckpointError(`${folder}: ${shard} holds ${name}, expected it in ${index.get(name) ?? 'no shard'}`);
      all.set(name, weight);
    }
  }
  const missing = [...index.keys()].filter((name) => !all.has(name));
  if (missing.length)
    throw new CheckpointError(`${folder}: ${INDEX} names ${missing.join(', ')}, but the shards do not hold it`);
  return all;
}

async function readShard(folder: string, name: string): Promise<Weights> {
  try {
    return decodeWeights(await readFileOf(folder, name));
  } catch (error) {
    if (!(error instanceof SafetensorsError)) throw error;
    throw new CheckpointError(`${folder}: ${name} is damaged: ${error.message}`);
  }
}

function parse(folder: string, name: string, bytes: Uint8Array): Record<string, unknown> {
  try {
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch (error) {
    throw new CheckpointError(`${folder}: ${name} is not valid JSON: ${(error as Error).message}`);
  }
}
