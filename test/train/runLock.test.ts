/** The folder of a run belongs to one process; a process that is gone does not keep it. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { lockRun } from '../../src/train/checkpoint/index.js';
import { metricsOf, seqmix, temporaryFolder, tinyRun, writeRun } from '../support/run.js';

const folder = temporaryFolder();
const lockOf = (dir: string) => join(dir, '.running.json');

test('one at a time within a process; a folder that stayed empty goes again', async () => {
  const dir = join(folder, 'one');
  const unlock = await lockRun(dir);
  expect(JSON.parse(readFileSync(lockOf(dir), 'utf8'))).toMatchObject({ pid: process.pid, host: hostname() });
  await expect(lockRun(`${folder}/x/../one`)).rejects.toThrow(
    /^train: expected a folder that no run writes into, got .*one, where this process has one since 20.*; stop that run or let it end, or set --output\.dir/,
  );
  await unlock();
  expect(existsSync(dir)).toBe(false);
  const again = await lockRun(dir);
  writeFileSync(join(dir, 'metrics.jsonl'), '');
  await again();
  expect(existsSync(dir)).toBe(true);
  expect(existsSync(lockOf(dir))).toBe(false);
});

const ended = spawnSync(process.execPath, ['-e', '']).pid;

test.each([
  { name: 'of a process that ended', left: JSON.stringify({ pid: ended, host: hostname(), since: '' }) },
  {
    name: 'of an earlier process of our number',
    left: JSON.stringify({ pid: process.pid, host: hostname(), since: '' }),
  },
  { name: 'of another machine', left: JSON.stringify({ pid: process.ppid, host: `not-${hostname()}`, since: '' }) },
  { name: 'that a crash cut short', left: undefined },
])('takes over a lock $name', async ({ name, left }) => {
  const dir = join(folder, name);
  mkdirSync(dir);
  writeFileSync(lockOf(dir), left === undefined ? '{"pid":' : `${left}\n`);
  const unlock = await lockRun(dir);
  expect(JSON.parse(readFileSync(lockOf(dir), 'utf8')).pid).toBe(process.pid);
  await expect(lockRun(dir)).rejects.toThrow(/no run writes into/);
  await unlock();
  expect(existsSync(dir)).toBe(true); // it was there before
});

test('a living process of this machine keeps it', async () => {
  const dir = join(folder, 'parent');
  mkdirSync(dir);
  const left = `${JSON.stringify({ pid: process.ppid, host: hostname(), since: '2026-01-02T03:04:05.678Z' })}\n`;
  writeFileSync(lockOf(dir), left);
  await expect(lockRun(dir)).rejects.toThrow(
    `where process ${process.ppid} has one since 2026-01-02T03:04:05.678Z; stop that run or let it end, or set --output.dir (where process ${process.ppid} is no run, delete ${lockOf(dir)})`,
  );
  expect(readFileSync(lockOf(dir), 'utf8')).toBe(left);
});

test('a second run into the folder of one that goes on changes nothing there; after kill -9 it may', async () => {
  const config = writeRun(folder, tinyRun({ train: { steps: 1e6, evalEvery: 0, samplePrompts: [] } }));
  const dir = join(folder, 'run');
  const run = (flags: string[], options = {}) =>
    seqmix(['train', config, `--output.dir=${dir}`, ...flags], { cwd: folder, ...options });
  let second: ReturnType<typeof run> | undefined;
  const first = await run([], {
    watch: (stdout: string, child: { kill(signal: string): boolean }) => {
      if (!second && /^step +5\//m.test(stdout)) {
        second = run(['--fresh']);
        second.then(() => child.kill('SIGKILL'));
      }
    },
  });
  expect(first.code).toBe('SIGKILL');
  const { code, stdout, stderr } = await (second as NonNullable<typeof second>);
  expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
  expect(stderr).toMatch(
    /^error: train: expected a folder that no run writes into, got .*run, where process \d+ has one/,
  );
  const { length } = metricsOf(dir);
  expect(metricsOf(dir).map(({ step }) => step)).toEqual(Array.from({ length }, (_, i) => i + 1));

  const steps = length + 20; // at least until after the last checkpoint
  const third = await run(['--resume', `--train.steps=${steps}`]);
  expect(third).toMatchObject({ code: 0, stderr: '' });
  expect(metricsOf(dir).at(-1)).toMatchObject({ kind: 'final', step: steps });
  expect(existsSync(lockOf(dir))).toBe(false);
});
