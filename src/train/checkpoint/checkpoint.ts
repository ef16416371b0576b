/**
 * Checkpoints of a run: `<run dir>/checkpoints/step-00001000/` holds `model.safetensors`, `optimizer.safetensors`, `config.json`
 * (the model's) and `state.json` (everything else, with length and sha256 of the other files and of itself).
 * A checkpoint is there whole or not at all, and loads whole or not at all. Node only.
 */
import { readFile, rm } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { CheckpointError } from './errors.js';
import { type FileSum, replaceFile, writeSynced } from './files.js';
import { checkpointsFolder, folderName, listSteps, publishFolder, removeFolder, tidyFolders } from './folders.js';
import { openSealed, sealJson } from './sealedJson.js';
import { readSealed, readVerified } from './verified.js';
import { decodeWeights, encodeWeights, type Weights } from './weights.js';

/** Everything a run needs to go on as if it had never stopped. All but the two maps must be plain JSON. */
export interface CheckpointParts {
  /** Updates done. */
  step: number;
  /** Model parameters by name. */
  weights: Weights;
  /** Moments of the optimizer by name. */
  optimizer: Weights;
  /** The complete model config. */
  modelConfig: object;
  /** The complete run config. */
  runConfig: object;
  /** Position of the training data reader. */
  data: unknown;
  /** State of the random numbers. */
  rng: unknown;
  /** Figures at this step, finite numbers. */
  metrics: Record<string, number>;
  /** The best evaluation so far, if there was one. */
  best?: { step: number; value: number };
}

export interface SaveOptions {
  /** Checkpoints kept beside the best one (default 2, at least 1). */
  keepLast?: number;
  /** This is the best checkpoint so far: `best.json` will name it, and it is kept. */
  isBest?: boolean;
}

const FILES = ['model.safetensors', 'optimizer.safetensors', 'config.json'] as const;
const STATE = 'state.json';
const BEST = 'best.json';
const FORMAT = 'seqmix-checkpoint';
const VERSION = 1;

/**
 * Saves a checkpoint, then removes older ones beyond `keepLast` (never the best one). Every byte is on the disk before it is visible.
 * @returns the path of the checkpoint folder
 */
export async function saveCheckpoint(
  runDir: string,
  parts: CheckpointParts,
  { keepLast = 2, isBest = false }: SaveOptions = {},
): Promise<string> {
  checkSave(parts, keepLast);
  const [parent, name] = [checkpointsFolder(runDir), folderName(parts.step)];
  await tidyFolders(runDir);
  await publishFolder(parent, name, (folder) => writeParts(folder, parts));
  if (isBest) await replaceFile(join(runDir, BEST), sealJson({ checkpoint: name, metrics: parts.metrics }));
  await prune(runDir, parts.step, keepLast);
  return join(parent, name);
}

function checkSave({ step }: CheckpointParts, keepLast: number): void {
  if (!Number.isSafeInteger(step) || step < 0)
    throw new RangeError(`saveCheckpoint: step must be an integer >= 0, got ${step}`);
  if (!Number.isSafeInteger(keepLast) || keepLast < 1)
    throw new RangeError(`saveCheckpoint: keepLast must be an integer >= 1, got ${keepLast}`);
}

async function writeParts(folder: string, parts: CheckpointParts): Promise<void> {
  const { weights, optimizer, modelConfig, ...state } = parts;
  const contents = {
    'model.safetensors': encodeWeights(weights),
    'optimizer.safetensors': encodeWeights(optimizer),
    'config.json': `${JSON.stringify(modelConfig, null, 2)}\n`,
  };
  const files: Record<string, FileSum> = {};
  for (const name of FILES) files[name] = await writeSynced(join(folder, name), contents[name]);
  await writeSynced(join(folder, STATE), sealJson({ format: FORMAT, version: VERSION, ...state, files }));
}

/**
 * Loads a checkpoint folder. Every file is checked against its recorded length and sha256 before anything is returned.
 * @throws CheckpointError naming the file, what was expected, what came, and the newest other checkpoint that is whole
 */
export async function loadCheckpoint(path: string): Promise<CheckpointParts> {
  try {
    return await loadWhole(path);
  } catch (error) {
    if (!(error instanceof CheckpointError)) throw error;
    throw new CheckpointError(`${error.message}; nothing was loaded. ${await remedy(path)}`);
  }
}

async function loadWhole(path: string): Promise<CheckpointParts> {
  const state = await readSealed(path, STATE);
  const { format, version, files, ...rest } = state;
  if (format !== FORMAT || version !== VERSION)
    throw new CheckpointError(
      `${path}: ${STATE} must be ${FORMAT} version ${VERSION}, got ${format} version ${version}`,
    );
  const bytes = await readVerified(path, FILES, files);
  return {
    ...(rest as Omit<CheckpointParts, 'weights' | 'optimizer' | 'modelConfig'>),
    weights: decodeWeights(bytes['model.safetensors']),
    optimizer: decodeWeights(bytes['optimizer.safetensors']),
    modelConfig: JSON.parse(new TextDecoder().decode(bytes['config.json'])),
  };
}

/** What to do when a checkpoint is damaged: the newest other one of the same run that loads. */
async function remedy(path: string): Promise<string> {
  const parent = dirname(resolve(path));
  const others = (await listSteps(dirname(parent))).map(folderName).filter((name) => name !== basename(resolve(path)));
  for (const name of others.reverse()) {
    const loads = await loadWhole(join(parent, name)).then(
      () => true,
      () => false,
    );
    if (loads) return `The newest other checkpoint that is whole: ${join(dirname(path), name)}`;
  }
  return 'No other checkpoint of this run is whole: start the run again, or restore the files from a copy';
}

/** The checkpoint with the highest step, or undefined when the run has none. It is not read yet: `loadCheckpoint` does. */
export async function latestCheckpoint(runDir: string): Promise<string | undefined> {
  await tidyFolders(runDir);
  const step = (await listSteps(runDir)).at(-1);
  return step === undefined ? undefined : join(checkpointsFolder(runDir), folderName(step));
}

/** The checkpoint that was best when it was saved, or undefined when none was. @throws CheckpointError when `best.json` is damaged */
export async function bestCheckpoint(runDir: string): Promise<string | undefined> {
  await tidyFolders(runDir);
  const name = await bestName(runDir);
  if (name === undefined) return undefined;
  const found = (await listSteps(runDir)).some((step) => folderName(step) === name);
  if (found) return join(checkpointsFolder(runDir), name);
  throw new CheckpointError(
    `${join(runDir, BEST)} names ${name}, which is not there; delete ${BEST} to go on without a best one`,
  );
}

async function bestName(runDir: string): Promise<string | undefined> {
  const path = join(runDir, BEST);
  const bytes = await readFile(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw error;
  });
  if (!bytes) return undefined;
  const name = openSealed(bytes)?.checkpoint;
  if (typeof name === 'string') return name;
  throw new CheckpointError(
    `${path} is damaged: expected JSON whose last entry is the sha256 of the text before it; delete it to go on without a best checkpoint`,
  );
}

/** Removes the checkpoints after `step`: a run that goes on from an earlier one leaves them behind. */
export async function dropCheckpointsAfter(runDir: string, step: number): Promise<void> {
  await tidyFolders(runDir);
  const dropped = (await listSteps(runDir)).filter((other) => other > step).map(folderName);
  const best = await bestName(runDir);
  if (best !== undefined && dropped.includes(best)) await rm(join(runDir, BEST));
  for (const name of dropped) await removeFolder(checkpointsFolder(runDir), name);
}

/** Later steps than the one just saved are not ours to remove: see `dropCheckpointsAfter`. */
async function prune(runDir: string, step: number, keepLast: number): Promise<void> {
  const best = await bestName(runDir);
  const older = (await listSteps(runDir)).filter((other) => other <= step).map(folderName);
  for (const name of older.slice(0, -keepLast)) if (name !== best) await removeFolder(checkpointsFolder(runDir), name);
}
