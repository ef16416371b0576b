/** Runs on several workers of which one is lost: one line says which and why, and the run can go on from its last checkpoint. */
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { expect, test } from 'vitest';
import { metricsOf, type SeqmixOptions, seqmix, temporaryFolder, tinyRun, writeRun } from '../support/run.js';

const cwd = temporaryFolder();
const config = writeRun(
  cwd,
  tinyRun({ train: { steps: 8, batchSize: 3, saveEvery: 3, evalEvery: 0, samplePrompts: [] } }),
);
const run = (dir: string, flags: string[], options?: SeqmixOptions) =>
  seqmix(['train', config, `--output.dir=${dir}`, ...flags], { cwd, ...options });

/** Loads a module into every thread of the run before anything else. */
function preload(name: string, code: string): Record<string, string> {
  const file = join(cwd, `${name}.mjs`);
  writeFileSync(file, `import { isMainThread, parentPort, threadId } from 'node:worker_threads';\n${code}`);
  return { NODE_OPTIONS: `--import ${pathToFileURL(file)}` };
}

/** Does something in worker 2 at its 17th message (three a step, one at a save): some steps after the checkpoint of step 3. */
const inWorker = (action: string) =>
  `let calls = 0;\nif (threadId === 2) parentPort.on('message', () => { if (++calls === 17) ${action} });`;

test.each([
  { name: 'throws', code: inWorker("throw new Error('out of luck');"), cause: 'failed: out of luck' },
  { name: 'exits', code: inWorker('process.exit(7);'), cause: 'ended with exit code 7' },
  {
    name: 'is-terminated',
    code: `let answers = 0;
if (isMainThread) process.on('worker', (worker) => {
  if (worker.threadId === 2) worker.on('message', () => { if (++answers === 17) worker.terminate(); });
});`,
    cause: 'ended with exit code 1',
  },
])('a worker that $name', async ({ name, code, cause }) => {
  const broken = await run(name, ['--workers=3'], { env: preload(name, code) });
  expect(broken.code).toBe(1);
  expect(broken.stderr).toMatch(
    new RegExp(
      `^error: train: worker 2 of 3 ${cause} after step [345], and the run stopped there; the checkpoint of step 3 is kept\\. Go on with the same command and --resume\\n$`,
    ),
  );
  const { code: exit, stdout, stderr } = await run(name, ['--workers', '2', '--resume']);
  expect({ exit, stderr }).toEqual({ exit: 0, stderr: '' });
  expect(stdout).toMatch(
    /^resumed at step 3\ntrain\.workers was 3 and is 2: sums are taken in another order, so the last bits will differ$/m,
  );
  expect(metricsOf(join(cwd, name)).at(-1)).toMatchObject({ kind: 'final', step: 8 });
});

const pipe = join(cwd, 'pipe');
if (process.platform !== 'win32') execFileSync('mkfifo', [pipe]);

test.skipIf(process.platform === 'win32').each([
  { name: 'loops', code: inWorker('for (;;);'), exit: 1 },
  // nothing ends a thread that is blocked in native code, nor by itself a process that has one
  {
    name: 'is blocked',
    code: `import { readFileSync } from 'node:fs';\n${inWorker(`readFileSync(${JSON.stringify(pipe)})`)}`,
    exit: 'SIGKILL',
  },
])('a worker that $name for ever is given up, and the run ends', async ({ name, code, exit }) => {
  const hung = await run(name, ['--workers=3', '--train.workerTimeout=3'], { env: preload(name, code) });
  expect(hung.code).toBe(exit);
  expect(hung.stderr).toMatch(
    /^error: train: worker 2 of 3 gave no sign of life for 3 s in its part "(gradients|reduce|update)" \(more patience: train\.workerTimeout, 0 for no end\) after step [345], and the run stopped there; the checkpoint of step 3 is kept\. Go on with the same command and --resume\n$/,
  );
  const { code: resumed, stderr } = await run(name, ['--workers=3', '--resume']);
  expect({ resumed, stderr }).toEqual({ resumed: 0, stderr: '' });
  expect(metricsOf(join(cwd, name)).at(-1)).toMatchObject({ kind: 'final', step: 8 });
});

test('a worker that cannot start ends the run before it touches the folder', async () => {
  const code = "if (threadId === 1) throw new Error('no luck at all');";
  const { code: exit, stderr, stdout } = await run('unstarted', ['--workers=2'], { env: preload('unstarted', code) });
  expect({ exit, stdout }).toEqual({ exit: 1, stdout: '' });
  expect(stderr).toBe('error: worker 1 of 2 failed: no luck at all\n');
});

test('the log of two workers has the fields of one', async () => {
  const dirs = ['one', 'two'];
  const done = await Promise.all(dirs.map((dir, i) => run(dir, [`--workers=${i + 1}`])));
  for (const result of done) expect(result).toMatchObject({ code: 0, stderr: '' });
  const [one, two] = dirs.map((dir) => metricsOf(join(cwd, dir)));
  expect(two.map((row) => Object.keys(row))).toEqual(one.map((row) => Object.keys(row)));
  expect(two[0].loss).toBeCloseTo(one[0].loss!, 5);
});

test('what cannot be dealt is refused as config', async () => {
  const { code, stderr } = await run('refused', ['--workers=4']);
  expect(code).toBe(2);
  expect(stderr).toContain('train.workers: must not exceed the rows of an update (batchSize 3 x accumulate 1), got 4');
});
