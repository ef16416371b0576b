/** Folders of packed models: what is in the files, what comes back, what is refused. */
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type * as tf from '@tensorflow/tfjs';
import { beforeAll, describe, expect, test } from 'vitest';
import { quantiseWeight } from '../../src/chunked/index.js';
import { runExport } from '../../src/cli/export.js';
import { runPack } from '../../src/cli/pack.js';
import { unpackTernary } from '../../src/formats/ternary.js';
import { CausalLM, type ModelConfig, packModel, SequenceClassifier } from '../../src/models/index.js';
import { exportModel, loadModelDir, readSafetensors } from '../../src/train/checkpoint/index.js';
import { createModel, openModel } from '../../src/train/openModel.js';
import { modelWeights } from '../../src/train/weights.js';
import { idTensor, lively, tokenIds } from '../models/support.js';
import { temporaryFolder } from '../support/run.js';

const folder = temporaryFolder();
const at = (name: string) => join(folder, name);
const config: ConstructorParameters<typeof CausalLM>[0] = {
  ...{ vocabSize: 64, hiddenSize: 64, numLayers: 2, mixers: ['mlgru'], linear: 'bit', tieEmbeddings: false },
  ...{ mlp: { type: 'bit_glu', intermediateSize: 128 }, ...lively },
};
const encodings = { '2': '2bit', '1.6': 'base3' } as const;
const flags = (bits: '2' | '1.6', dtype: 'F32' | 'BF16' = 'F32') => ({ bits, dtype, last: false });
let whole: CausalLM;

beforeAll(async () => {
  whole = new CausalLM(config, { seed: 4 });
  await exportModel(at('whole'), { weights: await modelWeights(whole), config: whole.config, dtype: 'F32' });
  for (const bits of ['2', '1.6'] as const) await runPack(at('whole'), at(bits), flags(bits));
});

describe.each(['2', '1.6'] as const)('%s bits', (bits) => {
  test('the folder: checksums, a marked config, a card, bytes for ternary weights and floats for the others', () => {
    expect(readdirSync(at(bits)).sort()).toEqual(['README.md', 'checksums.json', 'config.json', 'model.safetensors']);
    expect(JSON.parse(readFileSync(join(at(bits), 'config.json'), 'utf8')).packed).toBe(encodings[bits]);
    expect(readFileSync(join(at(bits), 'README.md'), 'utf8')).toContain(
      `stored as F32, ternary weights in ${bits === '2' ? '2 bits' : '1.6 bits (base 3)'} each: for inference`,
    );
    const { tensors, metadata } = readSafetensors(readFileSync(join(at(bits), 'model.safetensors')));
    expect(metadata.ternary).toBe(encodings[bits]);
    const ternary = [...tensors].filter(([, { dtype }]) => dtype === 'U8').map(([name]) => name);
    const expected = ['lm_head.weight'];
    for (const layer of [0, 1])
      for (const name of ['attn.i_proj', 'attn.f_proj', 'attn.g_proj', 'attn.o_proj', 'mlp.gate_proj', 'mlp.down_proj'])
        expected.push(`model.layers.${layer}.${name}.weight`);
    expect(ternary.sort()).toEqual(expected.sort());
    for (const name of ternary) {
      const weight = whole.weights.get(name) as tf.Variable;
      const { values, scale } = quantiseWeight(weight);
      const bytes = tensors.get(name)!.data as Uint8Array;
      const shape = weight.shape as [number, number];
      expect(unpackTernary(bytes, shape, { encoding: encodings[bits] })).toEqual(Int8Array.from(values.dataSync()));
      expect(tensors.get(`${name}_scale`)!.data).toEqual(scale.dataSync());
    }
    for (const [name, weight] of whole.weights)
      if (!ternary.includes(name)) expect(tensors.get(name)!.data, name).toEqual(weight.dataSync());
  });

  test('the opened model gives the logits of the whole one, to the last bit', async () => {
    const opened = await openModel(at(bits));
    const model = createModel(opened);
    expect(opened.config).toEqual({ ...whole.config, packed: encodings[bits] });
    const ids = idTensor(tokenIds(1, 20, 64));
    const [mine, want] = [model, whole].map((m) => m.forward(ids).logits.dataSync());
    expect(mine).toEqual(want);
    model.dispose();
  });

  test('ternary weights take less than a twelfth of their float32 bytes, in the file and in memory', async () => {
    const opened = await openModel(at(bits));
    const model = createModel(opened);
    const matrices = [...model.packed.values()];
    const floats = matrices.reduce((sum, { shape: [O, I] }) => sum + 4 * O * I, 0);
    const dense = [...model.weights.values()].reduce((sum, { size }) => sum + 4 * size, 0);
    expect(floats + dense).toBe(4 * whole.numParameters);
    const inMemory = matrices.reduce((sum, { data, scale }) => sum + 4 * (data.size + scale.size), 0);
    const header = readFileSync(join(at(bits), 'model.safetensors')).readUInt32LE(0) + 8;
    const inFile = statSync(join(at(bits), 'model.safetensors')).size - header - dense;
    expect(floats / inMemory).toBeGreaterThan(15);
    expect(floats / inFile).toBeGreaterThan(bits === '2' ? 15 : 18);
    model.dispose();
  });

  test('it is neither exported nor packed again', async () => {
    await expect(runExport(at(bits), at('again'), { dtype: 'F32', last: false })).rejects.toThrow(
      /^export: .* is a packed model, whose ternary weights are rounded for good; export the model it was packed from/,
    );
    await expect(runPack(at(bits), at('again'), flags('2'))).rejects.toThrow(/the model is packed \(.*\) already/);
    expect(readdirSync(folder)).not.toContain('again');
  });
});

test('the other weights in 16 bits: half their bytes, and the ternary ones as they were', async () => {
  await runPack(at('whole'), at('bf16'), flags('2', 'BF16'));
  expect(readFileSync(join(at('bf16'), 'README.md'), 'utf8')).toContain('stored as BF16, ternary weights in 2 bits');
  const [file, want] = ['bf16', '2'].map((name) => readSafetensors(readFileSync(join(at(name), 'model.safetensors'))));
  for (const [name, { dtype, data, shape }] of file.tensors) {
    const whole = want.tensors.get(name)!;
    if (whole.dtype === 'U8' || /_(scale|columns)$/.test(name)) expect({ dtype, data, shape }, name).toEqual(whole);
    else expect(dtype, name).toBe('BF16');
  }
  const model = createModel(await openModel(at('bf16')));
  const table = model.weights.get('model.embeddings.weight') as tf.Variable;
  const own = whole.weights.get('model.embeddings.weight') as tf.Variable;
  const [got, exact] = [table, own].map((w) => w.dataSync());
  for (const [i, x] of got.entries()) expect(Math.abs(x - exact[i])).toBeLessThanOrEqual(2 ** -8 * Math.abs(exact[i]));
  model.dispose();
});

test('a folder is not packed onto itself', async () => {
  await expect(runPack(at('whole'), `${at('whole')}/`, flags('2'))).rejects.toThrow(/name another folder/);
  expect((await openModel(at('whole'))).packed).toBeUndefined();
});

test('dense models and classifiers have nothing to pack', async () => {
  const dense = new CausalLM({ hiddenSize: 8, numLayers: 1, mixers: ['gla'], mlp: { intermediateSize: 8 } });
  await exportModel(at('dense'), { weights: await modelWeights(dense), config: dense.config });
  await expect(runPack(at('dense'), at('none'), flags('2'))).rejects.toThrow(/the model has no ternary weights/);
  const classifier = new SequenceClassifier({
    ...{ modelType: 'sequence_classifier', inputSize: 2, numClasses: 3, hiddenSize: 8, numLayers: 1 },
    mixers: ['mlgru'],
  });
  await exportModel(at('classifier'), { weights: await modelWeights(classifier), config: classifier.config });
  await expect(runPack(at('classifier'), at('none'), flags('2'))).rejects.toThrow(
    /^pack: .* is a sequence_classifier; only language models can be packed/,
  );
  expect(readdirSync(folder)).not.toContain('none');
  for (const model of [dense, classifier]) model.dispose();
});

describe('a folder whose parts do not fit', () => {
  const parts = async () => packModel({ config: whole.config, weights: await modelWeights(whole) });
  const head = 'lm_head.weight';
  /** Written with checksums that are right. */
  const refused = async (change: (model: Awaited<ReturnType<typeof parts>>) => object, message: RegExp) => {
    const model = await parts();
    await exportModel(at('odd'), { ...model, ...change(model), dtype: 'F32' });
    await expect(loadModelDir(at('odd'))).rejects.toThrow(message);
  };

  test('a config of another encoding', async () => {
    const { config, weights, packed } = await parts();
    const base3 = { ...(config as ModelConfig), packed: 'base3' };
    await exportModel(at('odd'), { config: base3, weights, packed, dtype: 'F32' });
    await expect(loadModelDir(at('odd'))).rejects.toThrow(
      /lm_head\.weight must be \[rows, 13\] for 64 columns as base3/,
    );
    await exportModel(at('odd'), { config: base3, weights, dtype: 'F32' });
    await expect(loadModelDir(at('odd'))).rejects.toThrow(/packed as base3, the file has none that are packed/);
  });

  test('rows of another length, a scale of zero', async () => {
    const changed = (part: object) => (model: Awaited<ReturnType<typeof parts>>) => ({
      packed: new Map([...model.packed, [head, { ...model.packed.get(head)!, ...part }]]),
    });
    await refused(
      changed({ shape: [64, 70] }),
      /lm_head\.weight must be \[rows, 18\] for 70 columns as 2bit, got \[64,16\]/,
    );
    await refused(changed({ scale: 0 }), /lm_head\.weight_scale must be positive, got 0/);
  });

  test('a changed byte', async () => {
    await exportModel(at('odd'), { ...(await parts()), dtype: 'F32' });
    const file = join(at('odd'), 'model.safetensors');
    const bytes = readFileSync(file);
    bytes[bytes.length - 1] ^= 1;
    writeFileSync(file, bytes);
    await expect(openModel(at('odd'))).rejects.toThrow(/model\.safetensors is damaged/);
  });
});
