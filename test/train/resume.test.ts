/** A run that was killed or interrupted and resumed equals an unbroken one to the last bit. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import {
  metricsOf,
  type SeqmixOptions,
  seqmix,
  signalAtStep,
  temporaryFolder,
  tinyExperts,
  tinyRun,
  writeRun,
} from '../support/run.js';

/** Trains in `unbroken` and, with what `breaks` does to it, in `broken`; then compares everything a run leaves. */
async function expectSameRun(
  settings: { train: { steps: number; [key: string]: unknown }; [key: string]: unknown },
  breaks: (run: (flags: string[], options?: SeqmixOptions) => ReturnType<typeof seqmix>) => Promise<void>,
): Promise<string> {
  const cwd = temporaryFolder();
  const config = writeRun(cwd, tinyRun(settings));
  writeFileSync(join(cwd, 'lines.jsonl'), documents);
  const run = (dir: string) => (flags: string[], options?: SeqmixOptions) =>
    seqmix(['train', config, `--output.dir=${dir}`, ...flags], { cwd, ...options });
  const [unbroken] = await Promise.all([run('unbroken')([]), breaks(run('broken'))]);
  expect(unbroken).toMatchObject({ code: 0, stderr: '' });

  const folders = ['unbroken', 'broken'].map((dir) => join(cwd, dir));
  const last = `checkpoints/step-${String(settings.train.steps).padStart(8, '0')}`;
  for (const file of ['model.safetensors', 'optimizer.safetensors', 'config.json']) {
    const [a, b] = folders.map((folder) => readFileSync(join(folder, last, file)));
    expect(b.equals(a), file).toBe(true);
  }
  const [a, b] = folders.map((folder) => JSON.parse(readFileSync(join(folder, last, 'state.json'), 'utf8')));
  expect(b.data).toEqual(a.data);
  expect(b.best).toEqual(a.best);
  expect(metricsOf(folders[1])).toEqual(metricsOf(folders[0]));
  return folders[0];
}

const documents = Array.from({ length: 150 }, (_, i) => JSON.stringify({ text: `document ${i} ends.` })).join('\n');

test('on wasm: killed, interrupted by Ctrl-C, resumed twice', async () => {
  const folder = await expectSameRun(
    { train: { steps: 20, saveEvery: 4, evalEvery: 6, halveAt: 0.6 } },
    async (run) => {
      expect((await run([], { watch: signalAtStep(6, 'SIGKILL') })).code).toBe('SIGKILL');
      const { code, stdout, stderr } = await run(['--resume'], { watch: signalAtStep(11, 'SIGINT') });
      expect(stdout).toMatch(/^resumed at step [4-9]$/m);
      expect(stderr).toContain('stopping after this step; once more to stop at once');
      expect(stdout).toMatch(/stopped at step 1\d; saved\. Go on with the same command and --resume/);
      expect(code).toBe(130);
      expect(await run(['--resume'])).toMatchObject({ code: 0, stderr: '' });
    },
  );
  const rates = metricsOf(folder).flatMap(({ kind, lr }) => (kind === 'train' ? [lr as number] : []));
  expect(rates[12] / rates[11]).toBeLessThan(0.5); // halved, and the step of the schedule
  expect(rates[13] / rates[12]).toBeGreaterThan(0.5);
  expect(metricsOf(folder).length).toBe(20 + 4 + 1); // every step, evaluations at 6, 12, 18, 20, the whole part
});

test('on two workers, with experts and uneven rows: killed, interrupted by Ctrl-C, resumed twice', async () => {
  const train = { steps: 12, saveEvery: 3, evalEvery: 4, batchSize: 3, workers: 2 };
  const folder = await expectSameRun({ train, model: tinyExperts }, async (run) => {
    expect((await run([], { watch: signalAtStep(5, 'SIGKILL') })).code).toBe('SIGKILL');
    const { code, stdout } = await run(['--resume'], { watch: signalAtStep(8, 'SIGINT') });
    expect(stdout).toMatch(/^steps: 12 of 3 x 24 tokens on 2 workers; /m);
    expect(stdout).toMatch(/stopped at step \d+; saved\. Go on with the same command and --resume/);
    expect(code).toBe(130);
    expect(await run(['--resume'])).toMatchObject({ code: 0, stderr: '' });
  });
  for (const { kind, expertLoad } of metricsOf(folder))
    if (kind === 'train') expect(expertLoad).toBeGreaterThanOrEqual(1);
});

test('on cpu, with packed documents and accumulation: killed and resumed', async () => {
  const settings = {
    backend: { name: 'cpu' },
    data: { source: { type: 'jsonl', files: ['lines.jsonl'] }, documents: 'separate' },
    train: { steps: 8, saveEvery: 3, evalEvery: 4, evalBatches: 1, batchSize: 1, accumulate: 2, seqLen: 12 },
  };
  await expectSameRun(settings, async (run) => {
    expect((await run([], { watch: signalAtStep(5, 'SIGKILL') })).code).toBe('SIGKILL');
    expect(await run(['--resume'])).toMatchObject({ code: 0, stderr: '' });
  });
});
