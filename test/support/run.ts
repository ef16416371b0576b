/** Tiny training runs, in this process and as processes of the built command line. */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll } from 'vitest';
import type { RunConfigInput } from '../../src/config/index.js';
import type { MetricsRow } from '../../src/train/metrics.js';

const folders: string[] = [];
afterAll(() => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});

/** A temporary folder that goes with the test file; also for use inside a test, where `afterAll` would come too late. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'seqmix-run-'));
  folders.push(folder);
  return folder;
}

/** 3 kB of text with something to learn in it. */
export const text = Array.from({ length: 120 }, (_, i) => `line ${i}: ${'abcdefgh'.slice(i % 7)} and so on\n`).join('');

/** A model of 3,840 parameters on `text.txt` of the same folder; parts given replace these. */
export function tinyRun(overrides: { train?: object; [key: string]: unknown } = {}): RunConfigInput {
  const { train, ...rest } = overrides;
  return {
    name: 'tiny',
    backend: { name: 'wasm', relaxedSimd: 'off' }, // so that every process rounds alike
    model: {
      hiddenSize: 8,
      numLayers: 2,
      mixers: [{ type: 'gla', numHeads: 2, expandK: 1, useShortConv: true }],
      mlp: { intermediateSize: 8 },
      chunkSize: 8,
    },
    data: { source: { type: 'text', files: ['text.txt'] }, valFraction: 0.1 },
    train: {
      ...{ steps: 20, batchSize: 2, seqLen: 24, lr: 0.01, logEvery: 1, evalEvery: 6, evalBatches: 2, saveEvery: 4 },
      ...{ samplePrompts: ['line '], sampleTokens: 8 },
      ...train,
    },
    ...rest,
  } as RunConfigInput;
}

/** A model with four experts in its second layer, two for a token. */
export const tinyExperts = {
  ...{ hiddenSize: 8, numLayers: 2, mixers: [{ type: 'gla', numHeads: 2 }], chunkSize: 8 },
  mlp: { intermediateSize: 8, moe: { numExperts: 4, moeIntermediateSize: 6, balanceRate: 0.01 } },
};

/** Writes `text.txt` and `run.json` into a folder. @returns the path of the config */
export function writeRun(folder: string, config: RunConfigInput = tinyRun()): string {
  writeFileSync(join(folder, 'text.txt'), text);
  writeFileSync(join(folder, 'run.json'), JSON.stringify(config));
  return join(folder, 'run.json');
}

/** The rows of a run's `metrics.jsonl` without what a clock or the memory decides. */
export function metricsOf(runDir: string): Partial<MetricsRow>[] {
  const lines = readFileSync(join(runDir, 'metrics.jsonl'), 'utf8').trimEnd().split('\n');
  return lines.map((line) => {
    const { tokensPerSecond: _, sequencesPerSecond: _s, memoryBytes: _m, ...row } = JSON.parse(line) as MetricsRow;
    return row;
  });
}

const bin = fileURLToPath(new URL('../../dist/cli/index.js', import.meta.url));

export interface Finished {
  /** Exit code, or the signal's name. */
  code: number | string;
  stdout: string;
  stderr: string;
}

export interface SeqmixOptions {
  cwd?: string;
  /** Added to the environment. */
  env?: Record<string, string>;
  /** Called with all of stdout so far whenever it grows. */
  watch?: (stdout: string, child: ChildProcess) => void;
}

/** Runs the built command line. */
export function seqmix(args: string[], { cwd, env, watch }: SeqmixOptions = {}): Promise<Finished> {
  if (!existsSync(bin)) throw new Error(`there is no ${bin}; run: npm run build`);
  const child = spawn(process.execPath, [bin, ...args], {
    cwd,
    env: { ...process.env, NODE_NO_WARNINGS: '1', ...env },
  });
  let [stdout, stderr] = ['', ''];
  child.stdout.on('data', (data: Buffer) => {
    stdout += data;
    watch?.(stdout, child);
  });
  child.stderr.on('data', (data: Buffer) => {
    stderr += data;
  });
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => resolve({ code: code ?? signal ?? '', stdout, stderr }));
  });
}

/** Sends a signal once, when a line of this step is out. */
export function signalAtStep(step: number, signal: NodeJS.Signals): (stdout: string, child: ChildProcess) => void {
  let sent = false;
  return (stdout, child) => {
    if (sent || !new RegExp(`^step +${step}/`, 'm').test(stdout)) return;
    sent = child.kill(signal);
  };
}
