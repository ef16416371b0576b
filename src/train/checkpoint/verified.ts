/** Reading files against their recorded length and sha256: all of them, before any is used. Node only. */
import { join } from 'node:path';
import { CheckpointError } from './errors.js';
import { type FileSum, readWhole, sumOf } from './files.js';
import { openSealed } from './sealedJson.js';

/** The bytes of a file of `folder`. @throws CheckpointError when it is not there */
export async function readFileOf(folder: string, name: string): Promise<Uint8Array> {
  try {
    return await readWhole(join(folder, name));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    throw new CheckpointError(`${folder}: expected a file ${name}, found none`);
  }
}

/** The object of a sealed JSON file. @throws CheckpointError when a byte of it changed */
export async function readSealed(folder: string, name: string): Promise<Record<string, unknown>> {
  const bytes = await readFileOf(folder, name);
  const value = openSealed(bytes);
  if (value) return value;
  throw new CheckpointError(
    `${folder}: ${name} is damaged: expected JSON whose last entry is the sha256 of the text before it, got ${bytes.length} bytes that do not agree with it`,
  );
}

/** The bytes of each named file, all read and all as recorded. @throws CheckpointError naming the file, what was expected and what came */
export async function readVerified<Name extends string>(
  folder: string,
  names: readonly Name[],
  recorded: unknown,
): Promise<Record<Name, Uint8Array>> {
  const sums = (recorded ?? {}) as Record<string, FileSum | undefined>;
  const files: [Name, Uint8Array][] = [];
  for (const name of names) {
    const bytes = await readFileOf(folder, name);
    const [got, want] = [sumOf(bytes), sums[name]];
    if (!want) throw new CheckpointError(`${folder}: the length and sha256 of ${name} are not recorded`);
    if (got.bytes !== want.bytes || got.sha256 !== want.sha256)
      throw new CheckpointError(`${folder}: ${name} is damaged: expected ${show(want)}, got ${show(got)}`);
    files.push([name, bytes]);
  }
  return Object.fromEntries(files) as Record<Name, Uint8Array>;
}

const show = ({ bytes, sha256 }: FileSum) => `${bytes} bytes with sha256 ${sha256}`;
