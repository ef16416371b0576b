/** What ran: the machine, and the versions of everything that took part. */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { cpus, totalmem } from 'node:os';
import { formatBytes } from '../src/train/progress.js';
import { pythonVersion } from './python.js';

/** Lines such as `Node 20.20.2`, for a document. */
export function versions(): string[] {
  const { version: own } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'));
  return [
    `${cpus()[0].model}, ${cpus().length} cores, ${formatBytes(totalmem())} of memory, ${process.platform} ${process.arch}`,
    `seqmix ${own}, Node ${process.versions.node} (V8 ${process.versions.v8})`,
    ...['@tensorflow/tfjs', '@jax-js/jax'].map((name) => `${name} ${packageVersion(name)}`),
    pythonVersion(),
  ];
}

function packageVersion(name: string): string {
  const folders = createRequire(import.meta.url).resolve.paths(name) ?? [];
  for (const folder of folders)
    try {
      return JSON.parse(readFileSync(`${folder}/${name}/package.json`, 'utf8')).version;
    } catch {} // not in this folder
  return 'not installed';
}
