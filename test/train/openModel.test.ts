import { mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { beforeAll, describe, expect, test } from 'vitest';
import { runExport } from '../../src/cli/export.js';
import { loadModelConfig, resolveRunConfig } from '../../src/config/index.js';
import { CausalLM, configToFla, type ModelConfig } from '../../src/models/index.js';
import { encodeWeights, exportModel, saveCheckpoint } from '../../src/train/checkpoint/index.js';
import { createModel, openModel, pretrainedNames, tokenizerOf } from '../../src/train/openModel.js';
import { modelWeights } from '../../src/train/weights.js';
import { temporaryFolder, tinyRun, writeRun } from '../support/run.js';

const folder = temporaryFolder();
writeRun(folder);
const vocabulary = { model: { type: 'BPE', vocab: { a: 0, b: 1, c: 2 }, merges: [] } };
writeFileSync(join(folder, 'tokenizer.json'), JSON.stringify(vocabulary));
const tokenizer = { type: 'huggingface' as const, file: 'tokenizer.json' };
const config = resolveRunConfig(tinyRun({ tokenizer }), { folder });
let weights: Awaited<ReturnType<typeof modelWeights>>;

/** The run's folder with checkpoints of steps 1 (the best) and 2. */
const run = join(folder, 'run');
beforeAll(async () => {
  const model = new CausalLM(config.model, { seed: 9 });
  weights = await modelWeights(model);
  model.dispose();
  const parts = { weights, optimizer: new Map(), modelConfig: config.model, runConfig: config, data: null, rng: null };
  await saveCheckpoint(run, { ...parts, step: 1, metrics: { bestBpb: 1 } }, { isBest: true });
  await saveCheckpoint(run, { ...parts, step: 2, metrics: {} });
});

test('of a run the best checkpoint, the last where asked or where none was best; of a checkpoint itself', async () => {
  const best = await openModel(run);
  expect(best).toMatchObject({ step: 1, metrics: { bestBpb: 1 }, config: config.model, weights });
  expect(best.run).toEqual(config);
  expect((await openModel(run, 'last')).step).toBe(2);
  expect((await openModel(join(run, 'checkpoints/step-00000002'))).step).toBe(2);
  renameSync(join(run, 'best.json'), join(run, 'aside.json'));
  expect((await openModel(run)).step).toBe(2);
  renameSync(join(run, 'aside.json'), join(run, 'best.json'));
});

test('an exported model brings its tokenizer along, also when it is exported again', async () => {
  const [once, twice] = [join(folder, 'once'), join(folder, 'twice')];
  await runExport(run, once, { dtype: 'F32', last: false });
  rmSync(join(folder, 'tokenizer.json'));
  await runExport(once, twice, { dtype: 'F32', last: false });
  writeFileSync(join(folder, 'tokenizer.json'), JSON.stringify(vocabulary));
  for (const path of [once, twice]) {
    const opened = await openModel(path);
    expect(opened).toMatchObject({ path, step: 1, config: config.model, weights, run: { name: 'tiny', tokenizer } });
    expect(tokenizerOf(opened).id).toBe(tokenizerOf({ path, config: config.model, run: config }).id);
  }
});

describe('a published model', () => {
  const published = join(folder, 'published');
  beforeAll(() => {
    mkdirSync(published);
    writeFileSync(join(published, 'config.json'), JSON.stringify(configToFla(config.model as ModelConfig)));
    writeFileSync(join(published, 'model.safetensors'), Buffer.concat(encodeWeights(weights)));
  });

  test('is opened and described without checksums; its tokenizer lies beside it', async () => {
    const opened = await openModel(published);
    expect(opened).toMatchObject({ run: undefined, step: undefined, metrics: {} });
    expect(new Map([...opened.weights].map(([name, { data }]) => [name, data]))).toEqual(
      new Map([...weights].map(([name, { data }]) => [name, data])),
    );
    expect(loadModelConfig(join(published, 'config.json'))).toEqual(opened.config);
    expect(tokenizerOf(opened).id).toBe('bytes'); // 256 ids and no tokenizer.json
    writeFileSync(join(published, 'tokenizer.json'), JSON.stringify(vocabulary));
    expect(tokenizerOf(opened).id).toMatch(/^huggingface-/);
    rmSync(join(published, 'tokenizer.json'));
    expect(() => tokenizerOf({ ...opened, config: { ...opened.config, vocabSize: 99 } })).toThrow(
      /its tokenizer is not recorded; put the tokenizer\.json/,
    );
    const before = tf.memory().numTensors;
    createModel(opened).dispose();
    expect(tf.memory().numTensors).toBe(before);
  });

  test('one of ours without its checksums is refused: its export did not end', async () => {
    const broken = join(folder, 'broken');
    await exportModel(broken, { weights, config: config.model });
    rmSync(join(broken, 'checksums.json'));
    await expect(openModel(broken)).rejects.toThrow(/expected a file checksums\.json, found none/);
  });
});

test('nothing there: what was looked for, and what there is', async () => {
  mkdirSync(join(folder, 'empty/checkpoints'), { recursive: true });
  for (const reference of ['nothing', join(folder, 'empty')])
    await expect(openModel(reference)).rejects.toThrow(`no model "${reference}": expected the folder of a run with`);
  const kinds = await Promise.all(pretrainedNames().map(async (name) => (await openModel(name)).config.modelType));
  expect(new Set(kinds)).toEqual(new Set(['causal_lm', 'sequence_classifier']));
});
