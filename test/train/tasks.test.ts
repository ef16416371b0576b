/** Generated tasks: what their examples are, that any of them can be had again, and runs on them. */
import { join } from 'node:path';
import * as tf from '@tensorflow/tfjs';
import fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import { useBackend } from '../../src/backend/useBackend.js';
import { type ConfigError, resolveRunConfig } from '../../src/config/index.js';
import { CausalLM } from '../../src/models/index.js';
import { type Batch, createTask, IGNORE_INDEX, TaskReader, type TaskSource } from '../../src/train/data/index.js';
import { evaluate } from '../../src/train/evaluate.js';
import { train } from '../../src/train/loop.js';
import { batchLoss } from '../../src/train/step.js';
import { IdTokenizer } from '../../src/train/tokenizers/index.js';
import { metricsOf, seqmix, signalAtStep, temporaryFolder, tinyRun, writeRun } from '../support/run.js';

beforeAll(() => useBackend('wasm', { relaxedSimd: 'off' }));

const held = { valExamples: 6 };
const recall = {
  type: 'mqar',
  vocabSize: 64,
  numPairs: 4,
  keyTokens: 1,
  repeats: 1,
  power: 0.01,
  randomFiller: true,
  ...held,
} as const;
const tasks: TaskSource[] = [
  recall,
  { ...recall, numPairs: [1, 3], randomFiller: false },
  { ...recall, numPairs: [1, 2], keyTokens: 2, keyIds: 3, repeats: 1.5 },
  { type: 'parity', ...held },
  { type: 's3', elements: 'all', ...held },
  { type: 's3', elements: 'swaps', ...held },
];

/** The rows of a batch as plain lists. */
function rowsOf({ inputs, targets, batchSize, seqLen }: Batch): { inputs: number[]; targets: number[] }[] {
  const row = (x: Int32Array, i: number) => Array.from(x.subarray(i * seqLen, (i + 1) * seqLen));
  return Array.from({ length: batchSize }, (_, i) => ({ inputs: row(inputs, i), targets: row(targets, i) }));
}

const examples = (source: TaskSource, seqLen: number, count: number, seed: number | string = 1) =>
  rowsOf(new TaskReader(createTask(source), { batchSize: count, seqLen, seed }).next());

describe('mqar', () => {
  test('pairs first, then each key once, where its value is asked for; nothing else is', () => {
    const anyTask = fc.record({
      pairs: fc.integer({ min: 1, max: 9 }),
      spare: fc.integer({ min: 0, max: 30 }),
      seed: fc.nat(1e6),
      randomFiller: fc.boolean(),
    });
    fc.assert(
      fc.property(anyTask, ({ pairs, spare, seed, randomFiller }) => {
        const vocabSize = 2 * pairs + 2 + (spare % 3);
        const source = { ...recall, vocabSize, numPairs: pairs, randomFiller };
        const [{ inputs, targets }] = examples(source, 4 * pairs + spare, 1, seed);
        const stored = new Map(Array.from({ length: pairs }, (_, i) => [inputs[2 * i], inputs[2 * i + 1]]));
        expect(stored.size).toBe(pairs);
        expect(new Set(stored.values()).size).toBe(pairs);
        const half = Math.floor(vocabSize / 2);
        for (const [key, value] of stored) {
          expect(key > 0 && key < half, `key ${key}`).toBe(true);
          expect(value >= half && value < vocabSize, `value ${value}`).toBe(true);
        }
        const asked = [...targets.entries()].filter(([, target]) => target !== IGNORE_INDEX);
        expect(new Set(asked.map(([place]) => inputs[place]))).toEqual(new Set(stored.keys()));
        for (const [place, target] of asked) {
          expect(place).toBeGreaterThanOrEqual(2 * pairs);
          expect(target).toBe(stored.get(inputs[place]));
        }
        const rest = inputs.filter((_, place) => place >= 2 * pairs && targets[place] === IGNORE_INDEX);
        if (!randomFiller) expect(new Set(rest).size).toBeLessThanOrEqual(1);
        expect(rest.every((id) => id >= 0 && id < vocabSize)).toBe(true);
      }),
      { numRuns: 60 },
    );
  });

  test('keys of several tokens, pairs written several times: each asked for once, at its last token', () => {
    const anyTask = fc.record({
      pairs: fc.integer({ min: 1, max: 9 }),
      keyTokens: fc.integer({ min: 1, max: 3 }),
      repeats: fc.constantFrom(1, 1.3, 2, 4.5),
      spare: fc.integer({ min: 0, max: 30 }),
      seed: fc.nat(1e6),
    });
    fc.assert(
      fc.property(anyTask, ({ pairs, keyTokens, repeats, spare, seed }) => {
        const keyIds = Math.ceil(pairs ** (1 / keyTokens)) + (spare % 2);
        const source = { ...recall, numPairs: pairs, keyTokens, keyIds, repeats };
        const written = Math.round(pairs * repeats);
        const width = keyTokens + 1;
        const [{ inputs, targets }] = examples(source, width * (written + pairs) + spare, 1, seed);
        const stored = new Map<string, number>();
        for (let i = 0; i < written; i++) {
          const [key, value] = [inputs.slice(width * i, width * i + keyTokens), inputs[width * i + keyTokens]];
          expect(key.every((id) => id >= 1 && id <= keyIds)).toBe(true);
          expect(stored.get(`${key}`) ?? value).toBe(value);
          stored.set(`${key}`, value);
        }
        expect([stored.size, new Set(stored.values()).size]).toEqual([pairs, pairs]);
        const asked = [...targets.entries()].filter(([, target]) => target !== IGNORE_INDEX);
        const keys = asked.map(([place]) => `${inputs.slice(place + 1 - keyTokens, place + 1)}`);
        expect(keys.every((_, i) => asked[i][0] - keyTokens + 1 >= width * written)).toBe(true);
        expect(new Set(keys)).toEqual(new Set(stored.keys()));
        for (const [i, [, target]] of asked.entries()) expect(target).toBe(stored.get(keys[i]));
      }),
      { numRuns: 60 },
    );
  });

  test("pairs beyond the first time are drawn by Zipf's law, and nothing tells which is written often", () => {
    const source = { ...recall, numPairs: 3, repeats: 2 };
    const counts = examples(source, 24, 3000).map(({ inputs }) => {
      const values = [0, 1, 2, 3, 4, 5].map((i) => inputs[2 * i + 1]);
      return [...new Set(values)].map((value) => values.filter((other) => other === value).length).sort();
    });
    const shares = [6, 3, 2].map((w) => w / 11); // 1, 1/2, 1/3
    const allSame = shares.reduce((sum, p) => sum + p ** 3, 0);
    const seen = counts.filter((sorted) => `${sorted}` === '1,1,4').length / 3000;
    expect(Math.abs(seen - allSame)).toBeLessThan(4 * Math.sqrt((allSame * (1 - allSame)) / 3000));
    const firsts = examples(source, 24, 3000).filter(({ inputs }) => inputs[0] === inputs[2]).length / 3000;
    expect(firsts).toBeGreaterThan(0.1); // shuffled: the second write may be of the pair of the first
  });

  test('distances of queries follow the power law', () => {
    const source = { ...recall, numPairs: 1, power: 0.5 };
    const places = examples(source, 12, 4000).map(({ targets }) => (targets.findIndex((t) => t >= 0) - 2) / 2);
    const weights = [1, 2, 3, 4, 5].map((d) => d ** -0.5);
    const total = weights.reduce((a, b) => a + b);
    for (const [place, weight] of weights.entries()) {
      const [share, p] = [places.filter((at) => at === place).length / 4000, weight / total];
      expect(Math.abs(share - p), `place ${place}`).toBeLessThan(4 * Math.sqrt((p * (1 - p)) / 4000));
    }
  });

  test('of several numbers of pairs each example draws one; what does not fit is refused', () => {
    const counts = examples({ ...recall, numPairs: [1, 3] }, 16, 60).map(
      ({ targets }) => targets.filter((t) => t >= 0).length,
    );
    expect(counts.filter((n) => n === 1).length).toBeGreaterThan(15);
    expect(counts.filter((n) => n === 3).length).toBeGreaterThan(15);
    expect(counts.every((n) => n === 1 || n === 3)).toBe(true);
    expect(() => examples(recall, 15, 1)).toThrow('mqar: 4 pairs need 16 tokens and 10 ids, got 15 and 64');
  });
});

describe('word problems', () => {
  test('parity: ones so far, modulo 2', () => {
    for (const { inputs, targets } of examples({ type: 'parity', ...held }, 40, 5)) {
      expect(new Set(inputs)).toEqual(new Set([0, 1]));
      expect(targets).toEqual(inputs.map((_, t) => inputs.slice(0, t + 1).reduce((a, b) => a + b) % 2));
    }
  });

  test.each(['all', 'swaps'] as const)('s3 of %s: three things moved one after another', (elements) => {
    const seen = new Map<number, string>();
    for (const { inputs, targets } of examples({ type: 's3', elements, ...held }, 60, 5)) {
      expect([...new Set(inputs)].sort()).toEqual(elements === 'all' ? [0, 1, 2, 3, 4, 5] : [1, 2, 3]);
      let things = ['a', 'b', 'c'];
      for (const [t, id] of inputs.entries()) {
        things = moves[id].map((from) => things[from]);
        const order = things.join('');
        expect(seen.get(targets[t]) ?? order).toBe(order); // one number for each order
        seen.set(targets[t], order);
      }
    }
    expect(new Set(seen.values()).size).toBe(6);
  });
});

/** Where each of three places takes its thing from. */
const moves = [
  [0, 1, 2],
  [1, 0, 2],
  [2, 1, 0],
  [0, 2, 1],
  [1, 2, 0],
  [2, 0, 1],
];

describe.each(tasks)('a reader of %j', (source) => {
  const reader = (batchSize = 3, seed: number | string = 5) =>
    new TaskReader(createTask(source), { batchSize, seqLen: 20, seed });

  test('any position can be had again, whatever the batch size; another seed, other examples', () => {
    const one = reader();
    const batches = [one.next(), one.next(), one.next()];
    expect(one.position()).toEqual({ epoch: 0, index: 9 });
    const again = reader();
    again.seek({ epoch: 0, index: 6 });
    expect(again.next()).toEqual(batches[2]);
    expect(rowsOf(reader(9).next())).toEqual(batches.flatMap(rowsOf));
    expect(reader(3, 6).next().inputs).not.toEqual(batches[0].inputs);
    expect(new Set(rowsOf(reader(9).next()).map((row) => row.inputs.join())).size).toBe(9);
    for (const { targets, numTargets } of batches) expect(numTargets).toBe(targets.filter((t) => t >= 0).length);
    expect(() => again.seek({ epoch: 1, index: 0 })).toThrow('TaskReader: a position is { epoch: 0, index }');
  });

  test('a pass gives its examples each time, and moves nothing', () => {
    const one = reader(4);
    expect([...one.pass(6)].map(({ batchSize }) => batchSize)).toEqual([4, 2]);
    expect([...one.pass(6, 1)]).toEqual([reader(4).next()]);
    expect(one.position().index).toBe(0);
  });
});

test('scoring the asked places alone: the loss and gradients of scoring all; hits are counted', async () => {
  const config = { vocabSize: 64, hiddenSize: 8, numLayers: 1, mixers: [{ type: 'gla' as const, numHeads: 2 }] };
  const model = new CausalLM(config, { seed: 3 });
  const batch = new TaskReader(createTask(recall), { batchSize: 5, seqLen: 24, seed: 2 }).next();
  const [inputs, targets] = [batch.inputs, batch.targets].map((x) => tf.tensor2d(x, [5, 24], 'int32'));
  const weights = [...model.weights.values()];
  const few = tf.variableGrads(() => batchLoss(model, batch), weights);
  const all = tf.variableGrads(() => model.loss(inputs, targets), weights);
  expect(few.value.dataSync()[0]).toBeCloseTo(all.value.dataSync()[0], 6);
  for (const name of Object.keys(all.grads)) {
    const [a, b] = [few.grads[name], all.grads[name]].map((g) => g.dataSync());
    for (const [i, x] of b.entries()) expect(Math.abs(a[i] - x), name).toBeLessThan(1e-6);
  }
  const { logits } = model.forward(inputs);
  const likeliest = tf.argMax(logits, -1).dataSync();
  const right = batch.targets.filter((target, i) => target === likeliest[i]).length;
  const { accuracy, loss, bpb, tokens } = await evaluate(model, [batch, batch], undefined);
  expect({ accuracy, bpb, tokens }).toEqual({ accuracy: right / 20, bpb: undefined, tokens: 40 });
  expect(loss).toBeCloseTo(all.value.dataSync()[0], 6);
  const perfect = { ...batch, targets: batch.targets.map((t, i) => (t < 0 ? t : likeliest[i])) };
  expect((await evaluate(model, [perfect], undefined)).accuracy).toBe(1);
  expect(() => model.loss(inputs, targets, { positions: Int32Array.of(1) })).toThrow(
    'CausalLM.loss: targets must have shape [1], got [5,24]',
  );
  model.dispose();
});

const parityRun = (overrides: { train?: object; [key: string]: unknown } = {}) =>
  tinyRun({
    model: {
      vocabSize: 2,
      hiddenSize: 8,
      numLayers: 1,
      mixers: [{ type: 'gla', numHeads: 2 }],
      mlp: { intermediateSize: 8 },
    },
    data: { source: { type: 'parity', valExamples: 6, valSeqLen: 40 } },
    ...overrides,
    train: { samplePrompts: undefined, ...overrides.train },
  });

describe('a run', () => {
  test('reports loss and accuracy of fresh and of held-out examples, which may be longer', async () => {
    const lines: string[] = [];
    const progress = { line: (line: string) => void lines.push(line), tick: () => {}, stop: () => {} };
    const dir = join(temporaryFolder(), 'run');
    const before = tf.memory().numTensors;
    const config = resolveRunConfig(parityRun({ output: { dir }, train: { steps: 12 } }));
    const { final, best } = await train(config, { progress });
    expect(tf.memory().numTensors).toBe(before);
    expect(final).toEqual({ loss: expect.any(Number), accuracy: expect.any(Number), tokens: 240 });
    const rows = metricsOf(dir);
    const evaluations = rows.filter(({ kind }) => kind === 'eval');
    expect(best!.value).toBe(Math.min(...evaluations.map(({ loss }) => loss!)));
    for (const { accuracy, kind, tokens } of rows) {
      expect((accuracy! * (kind === 'train' ? 48 : Number(tokens))) % 1).toBeCloseTo(0, 6);
      expect(accuracy! > 0.2 && accuracy! < 0.8).toBe(true);
    }
    const report = lines.join('\n');
    expect(report).toMatch(/^data: fresh examples of \{"type":"parity"/m);
    expect(report).toMatch(/^step 12\/12 {2}loss 0\.\d{4} {2}accuracy 0\.\d{4} {2}lr /m);
    expect(report).toMatch(/^eval at step 6: 0\.\d{4} nats\/token, accuracy 0\.\d{4} over 160 tokens, best so far$/m);
    expect(report).not.toMatch(/gzip|bits\/byte|bpb|sample/);
  });

  test('killed and resumed, also on two workers, equals an unbroken one; eval scores it at any length', async () => {
    const cwd = temporaryFolder();
    const config = writeRun(cwd, parityRun({ train: { steps: 10, saveEvery: 3, workers: 2 } }));
    const run = (dir: string, ...flags: string[]) => ['train', config, `--output.dir=${dir}`, ...flags];
    const [unbroken, killed] = await Promise.all([
      seqmix(run('unbroken'), { cwd }),
      seqmix(run('broken'), { cwd, watch: signalAtStep(5, 'SIGKILL') }),
    ]);
    expect([unbroken.code, unbroken.stderr, killed.code]).toEqual([0, '', 'SIGKILL']);
    expect(await seqmix(run('broken', '--resume'), { cwd })).toMatchObject({ code: 0, stderr: '' });
    const [whole, broken] = ['unbroken', 'broken'].map((dir) => metricsOf(join(cwd, dir)));
    expect(broken).toEqual(whole);
    const scored = await seqmix(['eval', 'unbroken', '--seq-len', '64', '--json'], { cwd });
    expect(JSON.parse(scored.stdout)).toMatchObject({ tokens: 6 * 64, accuracy: expect.any(Number) });
    const asTrained = await seqmix(['eval', 'unbroken', '--json'], { cwd });
    const { accuracy, tokens } = JSON.parse(asTrained.stdout);
    const best = whole.filter(({ kind }) => kind === 'eval').sort((a, b) => a.loss! - b.loss!)[0];
    expect(tokens).toBe(6 * 40);
    expect(Math.abs(accuracy - best.accuracy!)).toBeLessThan(0.2); // of all examples, not the first batches alone
    const text = await seqmix(['generate', 'unbroken', '--prompt', '1 0 1', '-n', '3'], { cwd });
    expect(text.stdout).toMatch(/^1 0 1( [01]){3}\n$/);
  });
});

test('a config says what of a task cannot be', () => {
  const problems = (source: object, overrides: object = {}) => {
    try {
      resolveRunConfig(parityRun({ data: { source }, ...overrides }));
    } catch (error) {
      return (error as ConfigError).problems.map(({ path, message }) => `${path}: ${message}`);
    }
    throw new Error('expected a ConfigError, got none');
  };
  const model = { vocabSize: 64 };
  expect(problems({ type: 'mqar', vocabSize: 64, numPairs: [2, 7] }, { model })).toEqual([
    'data.source.numPairs: 7 pairs need examples of at least 28 tokens, got 24',
  ]);
  expect(problems({ type: 'mqar', vocabSize: 8, numPairs: 2, valNumPairs: 6 }, { model })).toEqual([
    'data.source.vocabSize: 6 pairs need 14 ids, got 8',
  ]);
  expect(problems({ type: 'mqar', vocabSize: 64, numPairs: 4, valSeqLen: 8 }, { model })).toEqual([
    'data.source.valSeqLen: 4 pairs need examples of at least 16 tokens, got 8',
  ]);
  expect(problems({ type: 'mqar', vocabSize: 64, numPairs: 3, keyTokens: 2, repeats: 2 }, { model })).toEqual([
    'data.source.numPairs: 3 pairs need examples of at least 27 tokens, got 24',
  ]);
  expect(problems({ type: 'mqar', vocabSize: 64, numPairs: 4, keyTokens: 1, keyIds: 3 }, { model })).toEqual([
    'data.source.keyIds: 4 pairs need as many keys, got 3',
  ]);
  expect(problems({ type: 'mqar', vocabSize: 64, numPairs: 4, keyIds: 40 }, { model })).toEqual([
    'data.source.vocabSize: 4 pairs need 82 ids, got 64',
  ]);
  expect(problems({ type: 'mqar', vocabSize: 64, numPairs: 4, keyTokens: 7 }, { model })).toEqual([
    'data.source.keyTokens: keys must be at most 2^32 different ones, got 27512614111: lower keyIds too',
  ]);
  expect(problems({ type: 'mqar', vocabSize: 128, numPairs: 2 }, { model })).toEqual([
    "model.vocabSize: must be at least the tokenizer's 128 token ids, got 64",
  ]);
  expect(problems({ type: 's3' })).toEqual(["model.vocabSize: must be at least the tokenizer's 6 token ids, got 2"]);
  expect(problems({ type: 'parity' }, { tokenizer: { type: 'bytes' }, model: { vocabSize: 256 } })).toEqual([
    'tokenizer: a task has ids of its own: leave it out, got "bytes"',
  ]);
  const config = resolveRunConfig(parityRun());
  expect(config.tokenizer).toEqual({ type: 'ids', vocabSize: 2 });
  expect(resolveRunConfig(config)).toEqual(config);
});

test('ids are written as numbers', () => {
  const ids = new IdTokenizer(12);
  expect(ids.encode(' 3 0  11 ')).toEqual(Int32Array.of(3, 0, 11));
  expect(ids.decode(ids.encode('3 0 11'))).toBe('3 0 11');
  expect(['3', '0'].map((id) => ids.stream().push(Number(id))).join('')).toBe(' 3 0');
  expect(() => ids.encode('3 12')).toThrow('ids go from 0 to 11, got 12 at position 1');
  expect(() => ids.encode('x')).toThrow('got NaN');
});
