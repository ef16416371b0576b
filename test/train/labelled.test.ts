/** Labelled sequences: the sets, files, batches, noise. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { resolveRunConfig } from '../../src/config/index.js';
import { Rng } from '../../src/rng.js';
import { sliceRows } from '../../src/train/data/batch.js';
import {
  addSinusoids,
  batchOf,
  corrupted,
  type Example,
  type Examples,
  LabelledReader,
  listops,
  loadTrainingData,
  readExamples,
  sequentialMnist,
  sinusoids,
} from '../../src/train/data/index.js';
import { LISTOPS_TOKENS } from '../../src/train/data/labelled/listops.js';
import { listopsSchema, sequentialMnistSchema, sinusoidsSchema } from '../../src/train/data/labelled/schema.js';
import { temporaryFolder } from '../support/run.js';

const some = ({ read }: Examples, count: number): Example[] => Array.from({ length: count }, (_, i) => read(i));

describe('listops', () => {
  const bounds = { minLength: 20, maxLength: 60, maxDepth: 4, maxArgs: 5 };

  /** Reads an expression by itself, as a person would. */
  function valueByReading(tokens: string[]): { value: number; depth: number; args: number } {
    let at = 0;
    let most = 0;
    const read = (): { value: number; depth: number } => {
      const token = tokens[at++];
      if (/^\d$/.test(token)) return { value: Number(token), depth: 1 };
      const args: { value: number; depth: number }[] = [];
      while (tokens[at] !== ']') args.push(read());
      at += 1;
      most = Math.max(most, args.length);
      const x = args.map(({ value }) => value).sort((a, b) => a - b);
      const middle = (x[Math.floor((x.length - 1) / 2)] + x[Math.ceil((x.length - 1) / 2)]) / 2;
      const sum = x.reduce((a, b) => a + b, 0);
      const values: Record<string, number> = {
        '[MIN': x[0],
        '[MAX': x[x.length - 1],
        '[MED': Math.floor(middle),
        '[SM': sum % 10,
      };
      return { value: values[token], depth: 1 + Math.max(...args.map(({ depth }) => depth)) };
    };
    const result = read();
    expect(at).toBe(tokens.length);
    return { ...result, args: most };
  }

  test('every expression is well formed, within its bounds, and has the value it is said to have', () => {
    const examples = some(listops(bounds, 'a'), 300);
    const seen = new Set<number>();
    for (const { x, y } of examples) {
      const tokens = Array.from(x, (id) => LISTOPS_TOKENS[id]);
      const { value, depth, args } = valueByReading(tokens);
      expect(value, tokens.join(' ')).toBe(y);
      expect(tokens.length).toBeGreaterThanOrEqual(20);
      expect(tokens.length).toBeLessThanOrEqual(60);
      expect(depth).toBeLessThanOrEqual(4);
      expect(args).toBeLessThanOrEqual(5);
      seen.add(y as number);
    }
    expect([...seen].sort()).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    for (const token of LISTOPS_TOKENS)
      expect(examples.some(({ x }) => x.includes(LISTOPS_TOKENS.indexOf(token) as never))).toBe(true);
  });

  test('an example is a function of seed and number', () => {
    const one = listops(bounds, 'a');
    expect(one.read(7)).toEqual(listops(bounds, 'a').read(7));
    expect(one.read(7)).not.toEqual(listops(bounds, 'b').read(7));
    expect(one.read(7)).not.toEqual(one.read(8));
  });

  test('the published size: 500 to 2000 tokens of 10 levels', () => {
    const { x } = listops(listopsSchema.parse({ type: 'listops' }), 'a').read(0);
    expect(x.length).toBeGreaterThanOrEqual(500);
    expect(x.length).toBeLessThanOrEqual(2000);
  });

  test('bounds that nothing meets', () => {
    expect(() => listops({ ...bounds, minLength: 25, maxDepth: 2 }, 'a').read(0)).toThrow(
      /no expression of 25 to 60 tokens among 1000000 trees/,
    );
  });
});

describe('sinusoids', () => {
  const source = sinusoidsSchema.parse({
    type: 'sinusoids',
    length: 64,
    maxFrequency: 8,
    testMinFrequency: 10,
    testMaxFrequency: 12,
  });

  test('targets are amplitude and frequency of what is sampled', () => {
    for (const { x, y } of some(sinusoids(source, 'train', 'a'), 20)) {
      const [amplitude, share] = y as Float32Array;
      const w = (2 * Math.PI * share * 8) / 64;
      for (let i = 1; i < 63; i++) expect(x[i + 1] + x[i - 1]).toBeCloseTo(2 * Math.cos(w) * x[i], 4); // of any phase
      expect(Math.max(...x)).toBeLessThanOrEqual(amplitude + 1e-6);
      expect(amplitude).toBeGreaterThanOrEqual(0.5);
      expect(amplitude).toBeLessThanOrEqual(1.5);
    }
  });

  test('the test may have frequencies of its own', () => {
    const shares = some(sinusoids(source, 'test', 'a'), 50).map(({ y }) => (y as Float32Array)[1] * 8);
    expect(Math.min(...shares)).toBeGreaterThanOrEqual(10);
    expect(Math.max(...shares)).toBeLessThanOrEqual(12);
  });

  test('at irregular times: samples are at the sums of the intervals', () => {
    const { x, y, intervals } = sinusoids({ ...source, jitter: 0.5 }, 'train', 'a').read(3);
    const even = sinusoids(source, 'train', 'a').read(3);
    expect(y).toEqual(even.y);
    expect(x[0]).toBe(even.x[0]);
    expect(x).not.toEqual(even.x);
    expect(Math.min(...intervals!)).toBeGreaterThanOrEqual(0.5);
    expect(Math.max(...intervals!)).toBeLessThan(1.5);
    const [amplitude, share] = y as Float32Array;
    const phase = Math.atan2(
      x[0],
      (even.x[1] - x[0] * Math.cos((2 * Math.PI * share * 8) / 64)) / Math.sin((2 * Math.PI * share * 8) / 64),
    );
    let time = 0;
    for (let i = 1; i < 64; i++) {
      time += intervals![i];
      expect(x[i]).toBeCloseTo(amplitude * Math.sin((2 * Math.PI * share * 8 * time) / 64 + phase), 3);
    }
  });

  test('noise of the deviation asked for', () => {
    const [clean, noisy] = [0, 0.3].map((noise) => some(sinusoids({ ...source, noise }, 'train', 'a'), 40));
    const differences = clean.flatMap(({ x }, i) => Array.from(x, (value, t) => noisy[i].x[t] - value));
    const rms = Math.hypot(...differences) / Math.sqrt(differences.length);
    expect(rms).toBeGreaterThan(0.28);
    expect(rms).toBeLessThan(0.32);
  });
});

describe('sequential MNIST', () => {
  /** 40 images of each digit, whose pixels are told by digit, image and place. */
  const digits = Array.from({ length: 10 }, (_, digit) => ({
    raw: Float64Array.from({ length: 40 * 784 + 5 }, (_, i) => ((digit * 31 + i * 7) % 101) / 100),
  }));
  const load = (settings: object, valFraction = 0.1) =>
    sequentialMnist(sequentialMnistSchema.parse({ type: 'sequential-mnist', ...settings }), valFraction, () => digits);
  const all = ({ train, validation, test }: ReturnType<typeof load>) =>
    [train, validation!, test!].flatMap((part) => some(part, part.size));

  test('parts share no image and are all of them, in every class', () => {
    const set = load({ normalize: false });
    expect([set.train.size, set.validation?.size, set.test?.size]).toEqual([320, 40, 40]);
    const keys = all(set).map(({ x, y }) => `${y} ${x.subarray(0, 101).join()} ${x[300]}`);
    expect(keys.length).toBe(400);
    for (const digit of Array(10).keys()) expect(keys.filter((key) => key.startsWith(`${digit} `)).length).toBe(40);
    expect(load({ testFraction: 0 }, 0).validation).toBeUndefined();
  });

  test('smaller images are means of squares; permuted ones have the same pixels elsewhere', () => {
    const [whole, half] = [load({ normalize: false }), load({ normalize: false, size: 14 })].map(
      (set) => set.train.read(3).x,
    );
    for (const [row, column] of [
      [0, 0],
      [3, 5],
      [13, 13],
    ]) {
      const four = [0, 1, 28, 29].map((step) => whole[2 * row * 28 + 2 * column + step]);
      expect(half[row * 14 + column]).toBeCloseTo(four.reduce((a, b) => a + b) / 4, 6);
    }
    const permuted = load({ normalize: false, size: 14, permuted: true }).train.read(3).x;
    expect(permuted).not.toEqual(half);
    expect([...permuted].sort()).toEqual([...half].sort());
    expect(load({ size: 7 }).train.read(0).x.length).toBe(49);
  });

  test('normalised over the images for training', () => {
    const pixels = some(load({}).train, 320).flatMap(({ x }) => Array.from(x));
    const mean = pixels.reduce((a, b) => a + b, 0) / pixels.length;
    const variance = pixels.reduce((sum, x) => sum + (x - mean) ** 2, 0) / pixels.length;
    expect([mean, variance].map((x) => Math.round(x * 1e4) / 1e4 + 0)).toEqual([0, 1]);
  });

  test('the npm package: 10,000 digits', () => {
    const { train, validation, summary } = sequentialMnist(
      sequentialMnistSchema.parse({ type: 'sequential-mnist', size: 7 }),
      0.1,
    );
    expect([train.size, validation?.size]).toEqual([8000, 1000]);
    expect(summary).toBe('digits of 49 pixels: 8,000 for training, 1,000 for validation, 1,000 for the test');
  });
});

describe('batches', () => {
  const examples: Example[] = Array.from({ length: 7 }, (_, i) => ({
    x: Int32Array.from({ length: i + 1 }, () => i),
    y: i,
  }));
  const list: Examples = { size: 7, read: (i) => examples[i] };

  test('each epoch has every example once in another order; from a saved position it goes on with the same', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 0, max: 20 }), (batchSize, skipped) => {
        const reader = () => new LabelledReader(list, { batchSize, channels: 0, seed: 1 });
        const [a, b] = [reader(), reader()];
        const labels = Array.from({ length: 21 }, () => Array.from(a.next().labels)).flat();
        const epochs = Array.from({ length: Math.floor(labels.length / 7) }, (_, i) => labels.slice(7 * i, 7 * i + 7));
        for (const epoch of epochs) expect([...epoch].sort()).toEqual([0, 1, 2, 3, 4, 5, 6]);
        if (epochs.length > 1) expect(epochs[0]).not.toEqual(epochs[1]);
        const c = reader();
        for (let i = 0; i < skipped; i++) c.next();
        b.seek(JSON.parse(JSON.stringify(c.position())));
        expect(b.next()).toEqual(c.next());
      }),
      { numRuns: 50 },
    );
  });

  test('padding and lengths; a pass has each once', () => {
    const reader = new LabelledReader(list, { batchSize: 3, channels: 0 });
    const batches = [...reader.pass()];
    expect(batches.map(({ batchSize }) => batchSize)).toEqual([3, 3, 1]);
    expect(batches[0]).toEqual({
      ...{ inputs: Int32Array.of(0, 0, 0, 1, 1, 0, 2, 2, 2), channels: 0, labels: Int32Array.of(0, 1, 2) },
      ...{ batchSize: 3, seqLen: 3, numTargets: 3, lengths: Int32Array.of(1, 2, 3) },
    });
    expect(batches[2].lengths).toBeUndefined();
    expect([...reader.pass(2)].length).toBe(2);
  });

  test('rows of a batch are batches of these examples', () => {
    const timed = [3, 1, 2].map(
      (n): Example => ({
        x: Float32Array.from({ length: 2 * n }, (_, i) => n + i),
        y: Float32Array.of(n, -n),
        intervals: new Float32Array(n).fill(n),
      }),
    );
    const batch = batchOf(timed, 2);
    expect(batch.intervals).toEqual(Float32Array.of(3, 3, 3, 1, 1, 1, 2, 2, 1));
    const rows = sliceRows(batch, 1, 3);
    expect(rows).toEqual({ ...batchOf(timed.slice(1), 2), seqLen: 3, ...padded(rows) });
    expect(Array.from(rows.inputs)).toEqual([1, 2, 0, 0, 0, 0, 2, 3, 4, 5, 0, 0]);
    expect(rows.lengths).toEqual(Int32Array.of(1, 2));
    expect(rows.labels).toEqual(Float32Array.of(1, -1, 2, -2));
    expect(rows.intervals).toEqual(Float32Array.of(1, 1, 1, 2, 2, 1));
  });
  const padded = ({ inputs, lengths, intervals }: ReturnType<typeof batchOf>) => ({ inputs, lengths, intervals });
});

describe('files', () => {
  const folder = temporaryFolder();
  const read = (name: string, text: string) => {
    writeFileSync(join(folder, name), text);
    return readExamples([name], folder);
  };

  test('JSON lines', async () => {
    const examples = await read('a.jsonl', '{"x":[1,2,3],"y":1}\n\n{"x":[4],"y":0,"dt":[0.5]}\n');
    expect(examples).toEqual([
      { place: 'a.jsonl:1', channels: 1, x: [1, 2, 3], y: 1 },
      { place: 'a.jsonl:3', channels: 1, x: [4], y: 0, dt: [0.5] },
    ]);
    expect(await read('b.jsonl', '{"x":[[1,2],[3,4]],"y":[0.5,1]}')).toEqual([
      { place: 'b.jsonl:1', channels: 2, x: [1, 2, 3, 4], y: [0.5, 1] },
    ]);
  });

  test('CSV: a row for each sequence, or for each step', async () => {
    expect(await read('wide.csv', 'y,t0,t1,t2\r\n2,1,2.5,3\r\n0,"4",,\r\n')).toEqual([
      { place: 'wide.csv:2', channels: 1, x: [1, 2.5, 3], y: 2 },
      { place: 'wide.csv:3', channels: 1, x: [4], y: 0 },
    ]);
    expect(await read('long.csv', 'id,y1,y2,dt,a,b\nu,1,2,1,10,20\nu,,,0.5,11,21\nv,3,4,1,12,22\n')).toEqual([
      { place: 'long.csv:2', channels: 2, x: [10, 20, 11, 21], y: [1, 2], dt: [1, 0.5] },
      { place: 'long.csv:4', channels: 2, x: [12, 22], y: [3, 4], dt: [1] },
    ]);
    expect(await read('bare.csv', 'a,b\n1,2')).toEqual([{ place: 'bare.csv:2', channels: 1, x: [1, 2] }]);
  });

  test.each([
    ['a.jsonl', '{"x":[1]', 'a.jsonl:1: expected a JSON object with "x" and "y", got {"x":[1]'],
    [
      'a.jsonl',
      '{"x":[1],"y":0}\n{"y":1}',
      'a.jsonl:2: expected "x" to be a list of numbers, or of lists of numbers, got nothing',
    ],
    ['a.jsonl', '{"x":[[1,2],[3]],"y":1}', 'a.jsonl:1: expected step 1 of "x" to be a list of 2 numbers, got [3]'],
    ['a.jsonl', '{"x":[1,"2"],"y":1}', 'a.jsonl:1: expected step 1 of "x" to be a number, got 2'],
    [
      'a.jsonl',
      '{"x":[1],"y":"cat"}',
      'a.jsonl:1: expected "y" to be a class number, a number or a list of numbers, got cat',
    ],
    [
      'a.jsonl',
      '{"x":[1,2],"y":1,"dt":[1]}',
      'a.jsonl:1: expected "dt" to be a list of 2 intervals, each at least 0, got [1]',
    ],
    ['a.jsonl', '{"x":[1],"y":0}\n{"x":[[1,2]],"y":0}', 'a.jsonl:2: expected 1 numbers a step as in a.jsonl:1, got 2'],
    ['a.jsonl', '\n', 'a.jsonl holds no sequence'],
    ['a.csv', 'y,a\n1,x', 'a.csv:2: expected a number in column "a", got x'],
    ['a.csv', 'y,a\n,3', 'a.csv:2: expected a number in column "y", got '],
    ['a.csv', 'y,a\n1,3,4', 'a.csv:2: expected at most 2 cells, as the header has, got 1,3,4'],
    ['a.csv', 'y\n1', 'a.csv:1: expected a column of numbers beside id, dt and y, got y'],
    [
      'a.csv',
      'id,y,a\nu,1,1\nv,1,2\nu,1,3',
      'a.csv:4: expected the rows of an id to stand together, got id u again after id v',
    ],
    ['a.txt', 'x', 'a.txt: labelled sequences are read from .jsonl and .csv files, got ".txt"'],
  ])('%s %j: %s', async (name, text, told) => {
    await expect(read(name, text)).rejects.toThrow(told);
  });

  const run = (model: object, data: object) =>
    resolveRunConfig(
      {
        ...{ name: 'files', train: { steps: 1, batchSize: 2 } },
        model: {
          modelType: 'sequence_classifier',
          numClasses: 2,
          hiddenSize: 8,
          mixers: [{ type: 'gla', numHeads: 2 }],
          ...model,
        },
        data: { source: { type: 'sequences', files: ['set.jsonl'], ...data }, valFraction: 0.25 },
      } as never,
      { folder },
    );
  const set = Array.from({ length: 16 }, (_, i) => JSON.stringify({ x: [i, i + 1], y: i % 2 }));

  test('a set is cut in a fixed order; what does not fit the model is told by file and line', async () => {
    writeFileSync(join(folder, 'set.jsonl'), set.join('\n'));
    const load = (model: object = {}, data: object = {}) => loadTrainingData(run(model, data), undefined);
    const data = await load({}, { testFraction: 0.25 });
    expect(data.summary).toBe('sequences: 8 for training, 4 for validation, 4 for the test');
    const firsts = [data.train!, data.validation!, data.test!].flatMap((part) =>
      [...part.batches()].flatMap(({ inputs, seqLen }) => Array.from(inputs).filter((_, i) => i % seqLen === 0)),
    );
    expect(firsts.sort((a, b) => a - b)).toEqual(Array.from({ length: 16 }, (_, i) => i));
    expect((await load()).fingerprint).toBe((await load()).fingerprint);
    expect((await load()).fingerprint).not.toBe(data.fingerprint);
    await expect(load({ inputSize: 2 })).rejects.toThrow(
      'set.jsonl:1: the model takes 2 numbers a step, got 1 numbers',
    );
    await expect(load({ vocabSize: 16 })).rejects.toThrow('set.jsonl:16: tokens must be integers from 0 to 15, got 16');
    writeFileSync(join(folder, 'set.jsonl'), [...set, '{"x":[1],"y":2}'].join('\n'));
    await expect(load()).rejects.toThrow('set.jsonl:17: y must be a class from 0 to 1, got 2');
  });
});

describe('noise', () => {
  test('has the strength and the frequencies asked for', () => {
    const [T, channels] = [4000, 2];
    const x = new Rng('x').normalArray(T * channels);
    const frequencies = [0.5, 2];
    const y = addSinusoids(x, channels, { amplitude: 0.1, frequencies }, new Rng(1));
    const noise = y.map((value, i) => value - x[i]);
    const rms = (values: Float32Array) => Math.hypot(...values) / Math.sqrt(values.length);
    expect(rms(noise) / rms(x)).toBeCloseTo(0.1, 3);
    const power = (frequency: number, channel: number) => {
      let [re, im] = [0, 0];
      for (let t = 0; t < T; t++) {
        re += noise[channels * t + channel] * Math.cos(frequency * t);
        im += noise[channels * t + channel] * Math.sin(frequency * t);
      }
      return (2 * Math.hypot(re, im)) / T / rms(x);
    };
    for (const channel of [0, 1]) {
      for (const frequency of frequencies) expect(power(frequency, channel)).toBeCloseTo(0.1, 2);
      expect(power(1.1, channel)).toBeLessThan(0.01);
    }
  });

  test('of a batch: phases by seed and number, none on padding, however batched', () => {
    const examples = [5, 3, 4, 2].map((n): Example => ({ x: new Rng(n).normalArray(n), y: 0 }));
    const noise = { amplitude: 0.5, frequencies: [1], seed: 3 };
    const one = [...corrupted([batchOf(examples, 1)], noise)];
    const two = [...corrupted([batchOf(examples.slice(0, 2), 1), batchOf(examples.slice(2), 1)], noise)];
    const rows = (batches: typeof one) =>
      batches.flatMap(({ inputs, lengths, seqLen, batchSize }) =>
        Array.from({ length: batchSize }, (_, b) => Array.from(inputs.subarray(b * seqLen, b * seqLen + lengths![b]))),
      );
    expect(rows(one)).toEqual(rows(two));
    expect(Array.from(one[0].inputs.subarray(8, 10))).toEqual([0, 0]);
    expect(rows(one)[1]).not.toEqual(Array.from(examples[1].x));
    expect(rows([...corrupted([batchOf(examples, 1)], { ...noise, seed: 4 })])).not.toEqual(rows(one));
    expect(rows([...corrupted([batchOf(examples, 1)], { ...noise, amplitude: 0 })])).toEqual(
      rows([batchOf(examples, 1)]),
    );
    expect(() => [...corrupted([batchOf([{ x: Int32Array.of(1), y: 0 }], 0)], noise)]).toThrow('got tokens');
    for (const frequencies of [[], [-1], [3.2], [Number.NaN]])
      expect(() => addSinusoids(new Float32Array(3), 1, { amplitude: 1, frequencies }, new Rng(1))).toThrow(
        'radians per step',
      );
  });
});
