/** Files that survive a crash: written to a temporary name, synced to the disk, then renamed. Node only. */
import { createHash } from 'node:crypto';
import { type FileHandle, open, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';

/** What is recorded of a file, to know it again. */
export interface FileSum {
  bytes: number;
  sha256: string;
}

/** Content of a file: text, bytes, or bytes in pieces. */
export type Content = string | Uint8Array | readonly Uint8Array[];

/** Writes a new file and syncs it to the disk. @returns its length and sha256 */
export async function writeSynced(path: string, content: Content): Promise<FileSum> {
  const pieces = piecesOf(content);
  const hash = createHash('sha256');
  let bytes = 0;
  const file = await open(path, 'wx');
  try {
    for (const piece of pieces) {
      hash.update(piece);
      await writeAll(file, piece);
      bytes += piece.length;
    }
    await file.sync();
  } finally {
    await file.close();
  }
  return { bytes, sha256: hash.digest('hex') };
}

/** Replaces a file in one step: a crash leaves the old content or the new, never a part. */
export async function replaceFile(path: string, content: Content): Promise<FileSum> {
  const temporary = join(dirname(path), `.tmp-${process.pid}-${basename(path)}`);
  await rm(temporary, { force: true });
  const sum = await writeSynced(temporary, content);
  await rename(temporary, path);
  await syncFolder(dirname(path));
  return sum;
}

/** Makes renames inside a folder last. Windows has no such call and needs none. */
export async function syncFolder(path: string): Promise<void> {
  if (process.platform === 'win32') return;
  const folder = await open(path, 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

/** A whole file, also beyond the 2 GiB that `readFile` stops at. */
export async function readWhole(path: string): Promise<Uint8Array> {
  const file = await open(path, 'r');
  try {
    const { size } = await file.stat();
    const out = new Uint8Array(size);
    let at = 0;
    while (at < size) {
      const { bytesRead } = await file.read(out, at, Math.min(size - at, PIECE), at);
      if (bytesRead === 0) throw new Error(`readWhole: ${path} shrank while it was read`);
      at += bytesRead;
    }
    return out;
  } finally {
    await file.close();
  }
}

/** Length and sha256 of bytes. */
export function sumOf(bytes: Uint8Array | string): FileSum {
  const data = typeof bytes === 'string' ? new TextEncoder().encode(bytes) : bytes;
  return { bytes: data.length, sha256: createHash('sha256').update(data).digest('hex') };
}

const PIECE = 2 ** 30;

function piecesOf(content: Content): readonly Uint8Array[] {
  if (typeof content === 'string') return [new TextEncoder().encode(content)];
  return content instanceof Uint8Array ? [content] : content;
}

async function writeAll(file: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length; ) {
    const { bytesWritten } = await file.write(bytes, at, Math.min(bytes.length - at, PIECE));
    at += bytesWritten;
  }
}
