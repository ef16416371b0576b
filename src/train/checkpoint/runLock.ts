/** One process at a time writes into the folder of a run. Node only. */
import { mkdir, readFile, rm, rmdir, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { isRunning } from './processes.js';

const FILE = '.running.json';

interface Owner {
  pid: number;
  host: string;
  /** ISO 8601. */
  since: string;
}

/** Folders that this process holds. */
const held = new Set<string>();

/**
 * Takes the folder of a run, which is made where there is none, until the function that comes back is called. A lock that its process left
 * behind (it was killed, the machine went down) is taken over, as is one of another machine, of whose processes nothing can be known.
 * @throws Error where a process of this machine writes there
 */
export async function lockRun(dir: string): Promise<() => Promise<void>> {
  const folder = resolve(dir);
  const file = join(folder, FILE);
  const made = await mkdir(folder, { recursive: true });
  const owner: Owner = { pid: process.pid, host: hostname(), since: new Date().toISOString() };
  while (!(await create(file, owner))) {
    const other = await ownerOf(file);
    if (other && writes(other, folder)) throw new Error(inUse(dir, file, other));
    await rm(file, { force: true });
  }
  held.add(folder);
  return async () => {
    held.delete(folder);
    await rm(file, { force: true });
    if (made) await rmdir(folder).catch(() => undefined); // nothing was written: it goes as it came
  };
}

async function create(file: string, owner: Owner): Promise<boolean> {
  try {
    await writeFile(file, `${JSON.stringify(owner)}\n`, { flag: 'wx' });
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}

/** Undefined: it is gone, or holds less than a line even after a while, so a crash cut it short. */
async function ownerOf(file: string): Promise<Owner | undefined> {
  for (let tries = 0; tries < 5; tries++) {
    const text = await readFile(file, 'utf8').catch(() => undefined);
    if (text === undefined) return undefined;
    if (text.endsWith('\n')) return JSON.parse(text) as Owner;
    await delay(100); // another process is about to write it
  }
  return undefined;
}

function writes({ pid, host }: Owner, folder: string): boolean {
  return pid === process.pid ? held.has(folder) : host === hostname() && isRunning(pid);
}

function inUse(dir: string, file: string, { pid, since }: Owner): string {
  const who = pid === process.pid ? 'this process' : `process ${pid}`;
  return `train: expected a folder that no run writes into, got ${dir}, where ${who} has one since ${since}; stop that run or let it end, or set --output.dir (where process ${pid} is no run, delete ${file})`;
}
