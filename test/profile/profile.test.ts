import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { afterEach, describe, expect, test } from 'vitest';
import { installedKernels } from '../../src/chunked/wasm/runtime.js';
import { resolveRunConfig } from '../../src/config/index.js';
import { formatProfile, profileRows, Recorder, type Row, type Span, type TraceEvent } from '../../src/profile/index.js';
import { train } from '../../src/train/loop.js';
import { metricsOf, seqmix, temporaryFolder, tinyRun, writeRun } from '../support/run.js';

const folder = temporaryFolder();
writeRun(folder);

/** The functions a profile wraps, by name. */
const functionsOf = () => ({
  ...Object.fromEntries(tf.getKernelsForBackend('wasm').map((k) => [k.kernelName, k.kernelFunc])),
  ...installedKernels(),
});

describe('Recorder', () => {
  const recorder = new Recorder();
  afterEach(() => recorder.uninstall());

  test('times kernels in the phase at hand; a kernel inside another counts once, and shared memory is no output', () => {
    recorder.install();
    tf.tidy(() => {
      tf.ones([4]); // before the first step: not recorded
      recorder.beginStep('step 1');
      recorder.phase('one');
      const x = tf.add(tf.ones([2, 3]), 1);
      tf.reshape(x, [6]);
      recorder.phase('two');
      tf.engine().runKernel(tf._FusedMatMul, { a: x, b: tf.ones([3, 2]) }, { activation: 'relu' }); // runs that of relu
      recorder.endStep();
      tf.add(x, x);
    });
    const seen = recorder.spans.map(({ name, kind, phase, bytes }) => [name, kind, phase, bytes]);
    expect(seen).toEqual([
      ['Add', 'kernel', 'one', 24],
      ['Reshape', 'kernel', 'one', 0],
      ['one', 'phase', 'one', 0],
      ['Relu', 'kernel', 'two', 16],
      ['_FusedMatMul', 'kernel', 'two', 16],
      ['two', 'phase', 'two', 0],
      ['step 1', 'step', '', 0],
    ]);
    const [relu, fused] = recorder.spans.slice(3) as [Span, Span, ...Span[]];
    expect(fused.self).toBeCloseTo(fused.duration - relu.duration, 9);
  });

  test('a kernel that throws leaves no open span', () => {
    recorder.spans.length = 0;
    recorder.install();
    recorder.beginStep('step 1');
    recorder.phase('one');
    expect(() => tf.engine().runKernel(tf.BatchMatMul, { a: tf.ones([2, 3]), b: tf.ones([2, 3]) }, {})).toThrow();
    recorder.endStep();
    expect(recorder.spans.map(({ name }) => name)).toEqual(['BatchMatMul', 'one', 'step 1']);
  });

  test('uninstalled, every function is the original; a second install is refused', () => {
    const before = functionsOf();
    recorder.install();
    expect(Object.entries(functionsOf()).filter(([name, f]) => f === before[name])).toEqual([]);
    expect(() => recorder.install()).toThrow('is installed already');
    recorder.uninstall();
    expect(functionsOf()).toEqual(before);
  });
});

test('formatProfile joins small kernels, aligns columns and keeps the sums', () => {
  const row = (phase: string, op: string, ms: number): Row => ({ phase, op, calls: 1, ms, share: ms / 1000, bytes: 0 });
  const rows = [row('a', 'total', 1000), row('a', 'Big', 997), row('a', 'X', 1), row('a', 'Y', 1)];
  expect(formatProfile([...rows, row('a', 'outside kernels', 1)], 'title')).toBe(
    [
      'title',
      'phase  op               calls/step  ms/step   share  MB out',
      'a      total                     1  1000.00  100.0%     0.0',
      '       Big                       1   997.00   99.7%     0.0',
      '       outside kernels                 1.00    0.1%     0.0',
      '       2 others                  2     2.00    0.2%     0.0',
    ].join('\n'),
  );
});

describe('a profiled run', () => {
  const profile = { steps: 3, file: join(folder, 'traces', 'trace.json') };
  const lines: string[] = [];
  const progress = { line: (text: string) => void lines.push(text), tick: () => {}, stop: () => {} };
  const run = (name: string, options: object) =>
    train(
      resolveRunConfig(tinyRun({ output: { dir: join(folder, name) }, train: { steps: 7, samplePrompts: [] } }), {
        folder,
      }),
      { progress, ...options },
    );

  test('has the numbers of one without; its trace nests, and its table adds up to the steps', async () => {
    await run('plain', {});
    const before = functionsOf();
    await run('profiled', { profile });
    expect(metricsOf(join(folder, 'profiled'))).toEqual(metricsOf(join(folder, 'plain')));
    for (const [name, f] of Object.entries(before)) expect(functionsOf()[name], name).toBe(f);
    expect(lines.filter((line) => line.includes('profile of 3 steps, step 4 to step 6, on wasm'))).toHaveLength(1);

    const { traceEvents } = JSON.parse(readFileSync(profile.file, 'utf8')) as { traceEvents: TraceEvent[] };
    const open: TraceEvent[] = [];
    const parents = { step: undefined, phase: 'step', kernel: 'phase' };
    for (const event of traceEvents) {
      while (open.length && end(open[open.length - 1]) <= event.ts) open.pop();
      const outer = open[open.length - 1];
      if (outer) expect(end(event)).toBeLessThanOrEqual(end(outer) + 1e-6);
      expect(outer?.cat, event.name).toBe(parents[event.cat]);
      open.push(event);
    }
    const names = (cat: string) => traceEvents.filter((e) => e.cat === cat).map(({ name }) => name);
    expect(names('step')).toEqual(['step 4', 'step 5', 'step 6']);
    expect(names('phase').slice(0, 4)).toEqual(['data', 'forward', 'backward', 'update']);
    expect(names('kernel')).toEqual(expect.arrayContaining(['SeqmixLinear', 'SeqmixLinearGrad.x', 'adamWUpdate']));
  });

  test('a run that is stopped within the measured steps takes the wrappers off', async () => {
    const before = functionsOf();
    const stop = new AbortController();
    const line = (text: string) => void (/^step 5/.test(text) && stop.abort());
    const { status } = await run('stopped', { profile, signal: stop.signal, progress: { ...progress, line } });
    expect(status).toBe('interrupted');
    for (const [name, f] of Object.entries(before)) expect(functionsOf()[name], name).toBe(f);
  });

  test('the number of steps must be a positive integer', async () => {
    await expect(run('none', { profile: { steps: 0 } })).rejects.toThrow('profile steps must be a positive integer');
  });
});

test('profileRows: the parts of each phase add up to it, and all of them to the step', () => {
  const recorder = new Recorder();
  recorder.install();
  for (const step of ['1', '2']) {
    recorder.beginStep(step);
    for (const phase of ['a', 'b']) {
      recorder.phase(phase);
      tf.tidy(() => tf.add(tf.ones([100]), tf.square(tf.ones([100]))));
    }
  }
  recorder.endStep();
  recorder.uninstall();
  const rows = profileRows(recorder.spans);
  const ms = (part: Row[]) => part.reduce((sum, row) => sum + row.ms, 0);
  const isTotal = ({ op }: Row) => op === 'total';
  const step = rows[rows.length - 1];
  const measured = recorder.spans.filter(({ kind }) => kind === 'step').reduce((sum, s) => sum + s.duration, 0) / 2;
  expect(step.ms).toBeCloseTo(measured, 6);
  for (const phase of ['a', 'b']) {
    const mine = rows.filter((row) => row.phase === phase);
    expect(mine.map(({ op }) => op).sort()).toEqual(['Add', 'Square', 'outside kernels', 'total']);
    expect(mine.find(({ op }) => op === 'Add')).toMatchObject({ calls: 1, bytes: 400 });
    expect(ms(mine.filter((row) => !isTotal(row)))).toBeCloseTo(ms(mine.filter(isTotal)), 6);
  }
  // what lies between two phases of a step is no phase's
  expect(ms(rows.filter(isTotal).slice(0, -1)) / step.ms).toBeGreaterThan(0.9);
});

test('seqmix train --profile, as a process', async () => {
  const { code, stdout, stderr } = await seqmix(
    ['train', 'run.json', '--output.dir=cli', '--train.steps=6', '--profile', '--profile-steps=2'],
    { cwd: folder },
  );
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  expect(stdout).toMatch(/^profile of 2 steps, step 4 to step 5, on wasm; trace: cli\/profile.json/m);
  for (const phase of ['data', 'forward', 'backward', 'update', 'step'])
    expect(stdout).toMatch(new RegExp(`^${phase} +total +\\d`, 'm'));
  expect(JSON.parse(readFileSync(join(folder, 'cli', 'profile.json'), 'utf8')).traceEvents.length).toBeGreaterThan(100);
});

const end = ({ ts, dur }: TraceEvent) => ts + dur;
