/** The folders of a run's checkpoints: names, order, leftovers of interrupted saves. Node only. */
import { mkdir, readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { syncFolder } from './files.js';
import { isRunning } from './processes.js';

const NAME = /^step-(\d{8,})$/;
const LEFTOVER = /^\.(tmp|old)-(\d+)-(step-\d{8,})$/;

export const checkpointsFolder = (runDir: string) => join(runDir, 'checkpoints');

export const folderName = (step: number) => `step-${String(step).padStart(8, '0')}`;

/** Steps that have a checkpoint folder, ascending. */
export async function listSteps(runDir: string): Promise<number[]> {
  const steps = (await entries(checkpointsFolder(runDir))).flatMap((name) => {
    const match = NAME.exec(name);
    return match ? [Number(match[1])] : [];
  });
  return steps.sort((a, b) => a - b);
}

/**
 * Fills a folder under a temporary name, then gives it its own. A crash leaves the old folder or the new one, never a part:
 * an older folder of the same name steps aside until the new one is there (`tidyFolders` brings it back after a crash).
 */
export async function publishFolder(
  parent: string,
  name: string,
  fill: (path: string) => Promise<void>,
): Promise<void> {
  const temporary = join(parent, `.tmp-${process.pid}-${name}`);
  await mkdir(parent, { recursive: true });
  await rm(temporary, { recursive: true, force: true });
  await mkdir(temporary);
  try {
    await fill(temporary);
    await syncFolder(temporary);
    await replaceFolder(parent, name, temporary);
  } catch (error) {
    await rm(temporary, { recursive: true, force: true });
    throw error;
  }
}

async function replaceFolder(parent: string, name: string, temporary: string): Promise<void> {
  const target = join(parent, name);
  const aside = join(parent, `.old-${process.pid}-${name}`);
  const replaced = (await entries(parent)).includes(name);
  if (replaced) await rename(target, aside);
  await rename(temporary, target);
  await syncFolder(parent);
  if (replaced) await rm(aside, { recursive: true, force: true });
}

/** Removes a folder so that a crash half way never leaves something that looks whole. */
export async function removeFolder(parent: string, name: string): Promise<void> {
  const temporary = join(parent, `.tmp-${process.pid}-${name}`);
  await rm(temporary, { recursive: true, force: true });
  await rename(join(parent, name), temporary);
  await rm(temporary, { recursive: true, force: true });
}

/** Clears what saves of ended processes left behind, and brings back a folder that was being replaced. */
export async function tidyFolders(runDir: string): Promise<void> {
  const parent = checkpointsFolder(runDir);
  const names = await entries(parent);
  for (const leftover of names) {
    const match = LEFTOVER.exec(leftover);
    if (!match || isRunning(Number(match[2]))) continue;
    const [, kind, , name] = match;
    if (kind === 'old' && !names.includes(name)) await rename(join(parent, leftover), join(parent, name));
    else await rm(join(parent, leftover), { recursive: true, force: true });
  }
}

async function entries(folder: string): Promise<string[]> {
  try {
    return await readdir(folder);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}
