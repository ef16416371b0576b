import { spawn } from 'node:child_process';
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Rng } from '../../src/rng.js';
import {
  bestCheckpoint,
  bfloat16ToFloat32,
  CheckpointError,
  type CheckpointParts,
  dropCheckpointsAfter,
  exportModel,
  float32ToBfloat16,
  latestCheckpoint,
  loadCheckpoint,
  loadModelDir,
  saveCheckpoint,
  type Weights,
  writeSafetensors,
} from '../../src/train/checkpoint/index.js';
import { openSealed, sealJson } from '../../src/train/checkpoint/sealedJson.js';

const root = mkdtempSync(join(tmpdir(), 'seqmix-checkpoint-'));
afterAll(() => rmSync(root, { recursive: true }));
let runs = 0;
const newRun = () => join(root, `run-${runs++}`);

const weightsFrom = (seed: number): Weights =>
  new Map(
    ['embed', 'blocks.0.w', 'norm'].map((name, i) => [
      name,
      { shape: [i + 1, 2], data: new Rng(seed).split(name).normalArray(2 * (i + 1)) },
    ]),
  );
const parts = (step: number, seed = step): CheckpointParts => ({
  step,
  weights: weightsFrom(seed),
  optimizer: weightsFrom(seed + 1e6),
  modelConfig: { modelType: 'causal_lm', hiddenSize: 2 },
  runConfig: { name: 'test', train: { lr: 3e-4, betas: [0.9, 0.95] } },
  data: { epoch: 1, index: 17 },
  rng: new Rng(seed).state(),
  metrics: { loss: 1.25, bpb: 1 / 3 },
  best: { step, value: 1.25 },
});
const folders = (run: string) => readdirSync(join(run, 'checkpoints')).sort();

test('a checkpoint loads exactly as it was saved', async () => {
  const run = newRun();
  const path = await saveCheckpoint(run, parts(1000));
  expect(path).toBe(join(run, 'checkpoints', 'step-00001000'));
  expect(readdirSync(path).sort()).toEqual(['config.json', 'model.safetensors', 'optimizer.safetensors', 'state.json']);
  expect(await loadCheckpoint(path)).toEqual(parts(1000));
});

test('saving the same step again replaces it', async () => {
  const run = newRun();
  await saveCheckpoint(run, parts(5, 1));
  const path = await saveCheckpoint(run, parts(5, 2));
  expect(await loadCheckpoint(path)).toEqual({ ...parts(5, 2) });
  expect(folders(run)).toEqual(['step-00000005']);
});

test('the last ones and the best one are kept', async () => {
  const run = newRun();
  expect([await latestCheckpoint(run), await bestCheckpoint(run)]).toEqual([undefined, undefined]);
  for (const step of [1, 2, 3, 4, 5, 6])
    await saveCheckpoint(run, parts(step), { keepLast: 2, isBest: step === 1 || step === 3 });
  expect(folders(run)).toEqual(['step-00000003', 'step-00000005', 'step-00000006']);
  expect(await latestCheckpoint(run)).toBe(join(run, 'checkpoints', 'step-00000006'));
  expect(await bestCheckpoint(run)).toBe(join(run, 'checkpoints', 'step-00000003'));
});

test('steps sort by number, also beyond eight digits', async () => {
  const run = newRun();
  for (const step of [99_999_999, 100_000_000]) await saveCheckpoint(run, parts(step));
  expect(await latestCheckpoint(run)).toMatch(/step-100000000$/);
});

test('a run that goes on from an earlier step leaves the later ones only when told to', async () => {
  const run = newRun();
  for (const step of [1, 2, 3]) await saveCheckpoint(run, parts(step), { keepLast: 3, isBest: true });
  await saveCheckpoint(run, parts(2), { keepLast: 1 });
  expect(folders(run)).toEqual(['step-00000002', 'step-00000003']);
  await dropCheckpointsAfter(run, 2);
  expect(folders(run)).toEqual(['step-00000002']);
  expect(await bestCheckpoint(run)).toBeUndefined();
});

describe('damage', () => {
  const run = join(root, 'damaged');
  let path: string;
  let files: Record<string, Buffer>;
  beforeAll(async () => {
    await saveCheckpoint(run, parts(500));
    path = await saveCheckpoint(run, parts(1000));
    files = Object.fromEntries(readdirSync(path).map((name) => [name, readFileSync(join(path, name))]));
  });
  const names = ['config.json', 'model.safetensors', 'optimizer.safetensors', 'state.json'];
  const restore = () => {
    for (const [name, bytes] of Object.entries(files)) writeFileSync(join(path, name), bytes);
  };
  const good = 'The newest other checkpoint that is whole: ';

  async function expectRefused(name: string) {
    const error = await loadCheckpoint(path).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(CheckpointError);
    const { message } = error as Error;
    for (const words of [path, name, 'expected', 'got', 'nothing was loaded', good, 'step-00000500'])
      expect(message).toContain(words);
  }

  test('any byte flipped in any file is refused, with file, expectation, what came and the remedy', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...names),
        fc.nat(),
        fc.integer({ min: 1, max: 255 }),
        async (name, at, flip) => {
          const bytes = Buffer.from(files[name]);
          bytes[at % bytes.length] ^= flip;
          writeFileSync(join(path, name), bytes);
          await expectRefused(name);
          restore();
        },
      ),
      { numRuns: 300 },
    );
    expect((await loadCheckpoint(path)).step).toBe(1000);
  });

  test('every single byte of state.json counts', () => {
    const state = files['state.json'];
    expect(openSealed(state)).toBeDefined();
    for (let at = 0; at < state.length; at++)
      for (const flip of [1, 32, 128]) {
        const bytes = Buffer.from(state);
        bytes[at] ^= flip;
        expect(openSealed(bytes), `byte ${at}`).toBeUndefined();
      }
  });

  test('any file cut at any length, or with bytes added, is refused', async () => {
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...names), fc.nat(), fc.boolean(), async (name, at, longer) => {
        const bytes = files[name];
        writeFileSync(
          join(path, name),
          longer ? Buffer.concat([bytes, Buffer.from([at])]) : bytes.subarray(0, at % bytes.length),
        );
        await expectRefused(name);
        restore();
      }),
      { numRuns: 200 },
    );
  });

  test.each(names)('%s missing, or that of another checkpoint, is refused', async (name) => {
    rmSync(join(path, name));
    await expect(loadCheckpoint(path)).rejects.toThrow(
      `expected a file ${name}, found none; nothing was loaded. ${good}`,
    );
    const other = join(run, 'checkpoints', 'step-00000500', name);
    if (name.endsWith('.safetensors')) {
      copyFileSync(other, join(path, name));
      await expectRefused(name);
    }
    restore();
  });

  test('a version of the future is refused', async () => {
    const state = { ...openSealed(files['state.json']), version: 2 };
    writeFileSync(join(path, 'state.json'), sealJson(state));
    await expect(loadCheckpoint(path)).rejects.toThrow(
      'must be seqmix-checkpoint version 1, got seqmix-checkpoint version 2',
    );
    restore();
  });

  test('with no whole checkpoint left the remedy says so', async () => {
    const copy = newRun();
    cpSync(run, copy, { recursive: true });
    for (const name of ['step-00000500', 'step-00001000'])
      writeFileSync(join(copy, 'checkpoints', name, 'state.json'), '{}');
    await expect(loadCheckpoint((await latestCheckpoint(copy))!)).rejects.toThrow(
      'No other checkpoint of this run is whole',
    );
  });

  test('any byte flipped in best.json is refused', async () => {
    const copy = newRun();
    const best = await saveCheckpoint(copy, parts(1), { isBest: true });
    const bytes = readFileSync(join(copy, 'best.json'));
    for (let at = 0; at < bytes.length; at++) {
      const broken = Buffer.from(bytes);
      broken[at] ^= 1;
      writeFileSync(join(copy, 'best.json'), broken);
      await expect(bestCheckpoint(copy)).rejects.toThrow('best.json is damaged: expected');
    }
    writeFileSync(join(copy, 'best.json'), bytes);
    expect(await bestCheckpoint(copy)).toBe(best);
    rmSync(best, { recursive: true });
    await expect(bestCheckpoint(copy)).rejects.toThrow('names step-00000001, which is not there');
  });
});

describe('interrupted saves', () => {
  const dead = 2 ** 30; // beyond any pid
  test('leftovers are no checkpoints and are cleared, but those of a running process stay', async () => {
    const run = newRun();
    const first = await saveCheckpoint(run, parts(1));
    const parent = join(run, 'checkpoints');
    for (const pid of [dead, process.pid, process.ppid])
      cpSync(first, join(parent, `.tmp-${pid}-step-00000009`), { recursive: true });
    expect(await latestCheckpoint(run)).toBe(first);
    expect(folders(run)).toEqual([`.tmp-${process.ppid}-step-00000009`, 'step-00000001']);
  });

  test('a folder that was being replaced comes back', async () => {
    const run = newRun();
    const first = await saveCheckpoint(run, parts(1));
    const aside = join(run, 'checkpoints', `.old-${dead}-step-00000001`);
    cpSync(first, aside, { recursive: true });
    rmSync(first, { recursive: true });
    expect((await loadCheckpoint((await latestCheckpoint(run))!)).step).toBe(1);
    cpSync(first, aside, { recursive: true }); // and is dropped where the new one made it
    await latestCheckpoint(run);
    expect(existsSync(aside)).toBe(false);
  });

  test('a save that fails leaves nothing behind', async () => {
    const run = newRun();
    await saveCheckpoint(run, parts(1));
    const bad = { ...parts(2), metrics: { loss: Number.NaN } };
    await expect(saveCheckpoint(run, bad)).rejects.toThrow('loss is NaN, which JSON cannot hold');
    expect(folders(run)).toEqual(['step-00000001']);
    await expect(saveCheckpoint(run, parts(-1))).rejects.toThrow('step must be an integer >= 0, got -1');
    await expect(saveCheckpoint(run, parts(2), { keepLast: 0 })).rejects.toThrow(
      'keepLast must be an integer >= 1, got 0',
    );
  });

  test('a process killed at any moment leaves a run whose latest and best checkpoints load', async () => {
    const run = newRun();
    mkdirSync(run, { recursive: true });
    const script = join(root, 'saver.mts');
    const src = join(process.cwd(), 'src/train/checkpoint/index.ts');
    writeFileSync(
      script,
      `import { saveCheckpoint } from ${JSON.stringify(src)};
      const weights = new Map([['w', { shape: [50000], data: new Float32Array(50000).fill(1) }]]);
      const common = { weights, optimizer: weights, modelConfig: {}, runConfig: {}, data: 0, rng: 0, metrics: {} };
      for (let i = 0; ; i++) {
        await saveCheckpoint(process.argv[2], { step: 1 + (i % 7), ...common }, { keepLast: 2, isBest: i % 3 === 0 });
        process.stdout.write('.');
      }`,
    );
    for (const delay of [0, 3, 7, 12, 18]) {
      const child = spawn(process.execPath, ['--import', 'tsx', script, run], { stdio: ['ignore', 'pipe', 'inherit'] });
      await new Promise<void>((resolve) => {
        child.stdout.once('data', () => setTimeout(() => child.kill('SIGKILL'), delay));
        child.once('exit', () => resolve());
      });
      const latest = await latestCheckpoint(run);
      expect((await loadCheckpoint(latest!)).weights.get('w')!.data[49999]).toBe(1);
      await loadCheckpoint((await bestCheckpoint(run))!);
      expect(folders(run).every((name) => name.startsWith('step-'))).toBe(true);
    }
  });
});

describe('model folders', () => {
  const weights = weightsFrom(3);
  const config = { modelType: 'causal_lm', hiddenSize: 2 };

  test('bfloat16 by default, info kept; exporting again replaces', async () => {
    const folder = newRun();
    await exportModel(folder, { weights, config, info: { tokenizer: { type: 'bytes' } } });
    const loaded = await loadModelDir(folder);
    expect(loaded.config).toEqual(config);
    expect(loaded.info).toEqual({ tokenizer: { type: 'bytes' } });
    for (const [name, { shape, data }] of weights)
      expect(loaded.weights.get(name)).toEqual({ shape, data: bfloat16ToFloat32(float32ToBfloat16(data)) });
    await exportModel(folder, { weights, config, dtype: 'F32' });
    expect(await loadModelDir(folder)).toEqual({ weights, config, info: undefined });
    expect(readdirSync(folder).sort()).toEqual(['checksums.json', 'config.json', 'model.safetensors']);
  });

  test('any byte flipped or cut in any file is refused', async () => {
    const folder = newRun();
    await exportModel(folder, { weights, config, info: { a: 1 } });
    const names = readdirSync(folder);
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...names), fc.nat(), fc.nat(255), async (name, at, flip) => {
        const bytes = readFileSync(join(folder, name));
        const broken = Buffer.from(bytes);
        broken[at % bytes.length] ^= flip;
        writeFileSync(join(folder, name), flip ? broken : bytes.subarray(0, at % bytes.length));
        const error = await loadModelDir(folder, { checksums: 'optional' }).catch((e: unknown) => e);
        writeFileSync(join(folder, name), bytes);
        expect(error).toBeInstanceOf(CheckpointError);
        expect((error as Error).message).toContain(`${name} is damaged: expected`);
      }),
      { numRuns: 150 },
    );
    expect((await loadModelDir(folder)).info).toEqual({ a: 1 });
  });

  test('models of other programs: one file or shards, only when asked for', async () => {
    const folder = newRun();
    mkdirSync(folder);
    writeFileSync(join(folder, 'config.json'), '{"model_type":"gla"}');
    const put = (file: string, name: string) =>
      writeFileSync(
        join(folder, file),
        writeSafetensors(new Map([[name, { dtype: 'F32' as const, ...weights.get(name)! }]])),
      );
    put('a.safetensors', 'embed');
    put('b.safetensors', 'norm');
    const index = (map: object) =>
      writeFileSync(join(folder, 'model.safetensors.index.json'), JSON.stringify({ weight_map: map }));
    index({ embed: 'a.safetensors', norm: 'b.safetensors' });
    await expect(loadModelDir(folder)).rejects.toThrow(
      "expected a file checksums.json, found none; pass { checksums: 'optional' }",
    );
    const load = () => loadModelDir(folder, { checksums: 'optional' });
    expect((await load()).weights).toEqual(new Map([...weights].filter(([name]) => name !== 'blocks.0.w')));
    index({ embed: 'a.safetensors', norm: 'a.safetensors' });
    await expect(load()).rejects.toThrow('names norm, but the shards do not hold it');
    index({ norm: 'b.safetensors', x: 'a.safetensors' });
    await expect(load()).rejects.toThrow('a.safetensors holds embed, expected it in no shard');
    index({ norm: 'c.safetensors' });
    await expect(load()).rejects.toThrow('expected a file c.safetensors, found none');
    writeFileSync(join(folder, 'c.safetensors'), 'x');
    await expect(load()).rejects.toThrow(
      'c.safetensors is damaged: readSafetensors: a file has at least 8 bytes, got 1',
    );
  });
});
