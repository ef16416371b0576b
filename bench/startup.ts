/** From the start of a process to the first training loss and to the first token, over fresh processes of the built package. */
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { environment, WASM_ONLY } from './environment.js';
import {
  against,
  type Contestant,
  type Context,
  facts,
  PATIENCE_MS,
  type Result,
  type Suite,
  takeTurns,
} from './harness.js';
import { PYTHON } from './python.js';
import { median } from './statistics.js';

/** What a first training loss should take at most. */
const AIM_MS = 3000;
/** The kernels' build is the one `useBackend` chooses by itself. */
const RAN = { build: 'auto', native: 'off' };

export const startup: Suite = {
  name: 'startup',
  tests: ['test/models/generate', 'test/train/train.'],
  tasks: {},
  async run(context) {
    const folder = mkdtempSync(join(tmpdir(), 'seqmix-bench-'));
    const firstLoss = inFreshProcess('first training loss', process.execPath, [
      script('startup/firstLoss.mjs'),
      folder,
    ]);
    const firstToken = inFreshProcess('first token', process.execPath, [script('startup/firstToken.mjs')]);
    const peers = [
      inFreshProcess('tfjs-linear', process.execPath, [script('startup/stockStep.mjs')]),
      inFreshProcess('pytorch-linear', PYTHON, [script('python/startup.py')]),
    ];
    try {
      const results = await takeTurns([firstLoss, firstToken, ...peers], context.reps);
      emitAgainst(context, results, firstLoss.name, peers);
      emitAgainst(context, results, firstToken.name, peers);
      const ms = median(results.get(firstLoss.name)!.samples);
      context.emit({
        ...facts('startup', 'aim for the first training loss'),
        ...RAN,
        ms,
        aimMs: AIM_MS,
        reached: ms < AIM_MS,
      });
    } finally {
      rmSync(folder, { recursive: true });
    }
  },
};

const script = (path: string) => fileURLToPath(new URL(path, import.meta.url));

/** Both peers only start and take one step of a linear layer: a floor, and said so in the row. */
function emitAgainst(context: Context, results: Map<string, Result>, name: string, peers: Contestant[]): void {
  const mine = results.get(name) as Result;
  if (mine.failure) throw new Error(`bench startup: ${name} failed: ${mine.failure}`);
  for (const { name: peer } of peers) {
    const { samples, failure } = results.get(peer) as Result;
    const row = {
      ...facts('startup', name),
      ...RAN,
      reps: context.reps,
      peer,
      note: 'a linear layer only: a floor',
    };
    context.emit(failure ? { ...row, skipped: failure } : { ...row, ...against(mine.samples, samples) });
  }
}

/** Milliseconds from the spawn of a process to its first line. */
function inFreshProcess(name: string, command: string, args: string[]): Contestant {
  const time = () =>
    new Promise<number>((resolve, reject) => {
      const start = performance.now();
      const child = spawn(command, args, { cwd: script('..'), env: { ...environment(), ...WASM_ONLY } });
      const timer = setTimeout(() => child.kill('SIGKILL'), PATIENCE_MS);
      let [ms, complaint]: [number | undefined, string] = [undefined, ''];
      child.stdout.once('data', () => {
        ms = performance.now() - start;
      });
      child.stderr.on('data', (text) => {
        complaint = `${complaint}${text}`.slice(-500);
      });
      child.once('error', reject);
      child.once('close', (code) => {
        clearTimeout(timer);
        if (ms !== undefined && code === 0) resolve(ms);
        else reject(new Error(`its process ended (exit code ${code}) ${complaint.trim()}`));
      });
    });
  const ready = async () => void (await time()); // files come from the disk once
  return { name, told: { values: [], memoryBytes: 0 }, ready, time, close: () => {} };
}
