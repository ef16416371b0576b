import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { resolveRunConfig } from '../../src/config/index.js';
import { type Batch, loadTrainingData } from '../../src/train/data/index.js';
import { ByteTokenizer, loadTokenizer } from '../../src/train/tokenizers/index.js';
import { temporaryFolder, text, tinyRun, writeRun } from '../support/run.js';

const folder = temporaryFolder();
writeRun(folder);
const config = (overrides = {}) => resolveRunConfig(tinyRun(overrides), { folder });
const bytes = new ByteTokenizer();

/** A byte-level vocabulary of single characters and of two-letter merges. */
const pairs = ['li', 'ne', 'an', 'so'];
const letters = [...'abcdefghijklmnopqrstuvwxyz0123456789:Ġ Ċ'];
const tokenizerFile = join(folder, 'tokenizer.json');
writeFileSync(
  tokenizerFile,
  JSON.stringify({
    version: '1.0',
    added_tokens: [],
    normalizer: null,
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
    post_processor: null,
    decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      ...{ type: 'BPE', dropout: null, unk_token: null, fuse_unk: false, byte_fallback: false },
      vocab: Object.fromEntries([...letters, ...pairs].map((token, id) => [token, id])),
      merges: pairs.map((pair) => [...pair].join(' ')),
    },
  }),
);

test('both parts, cut at a position of the text, with their figures', async () => {
  const data = await loadTrainingData(config(), bytes);
  const cut = text.length - Math.round(text.length * 0.1);
  expect(Buffer.from(data.validation!.bytes!()).toString()).toBe(text.slice(cut));
  expect(data.validation!.bytesPerToken).toBe(1);
  expect(data.bytesPerToken).toBe(1);
  expect(data.summary).toBe('1 text, tokenizer bytes, 2,712 tokens for training, 301 for validation');
  const [first, again] = [data.trainingReader(), data.trainingReader()].map((reader) => reader.next());
  expect(again).toEqual(first);
  expect([...data.validation!.batches(1)][0].inputs.slice(0, 5)).toEqual(bytes.encode(text.slice(cut, cut + 5)));
  expect([...data.validation!.batches(2)]).toHaveLength(2);
  expect([...data.validation!.batches()].reduce((sum, { numTargets }) => sum + numTargets, 0)).toBe(300);
});

test('a tokenizer.json: bytes are those of the text, whatever the tokens', async () => {
  const tokenizer = { type: 'huggingface' as const, file: tokenizerFile };
  const run = config({ tokenizer, model: { vocabSize: 64, hiddenSize: 8, mixers: [{ type: 'gla', numHeads: 2 }] } });
  const data = await loadTrainingData(run, loadTokenizer(run.tokenizer!));
  const validation = Buffer.from(data.validation!.bytes!()).toString();
  expect(text.endsWith(validation)).toBe(true);
  const numTokens = [...data.validation!.batches()].reduce((sum, { numTargets }) => sum + numTargets, 1);
  expect(data.validation!.bytesPerToken).toBeCloseTo(validation.length / numTokens, 12);
  expect(data.bytesPerToken).toBeGreaterThan(1.1);
  expect(data.summary).toMatch(/tokenizer huggingface-[0-9a-f]{16}, /);
});

describe('the fingerprint', () => {
  const fingerprint = async (overrides = {}) => (await loadTrainingData(config(overrides), bytes)).fingerprint;
  const source = (...files: string[]) => ({ data: { source: { type: 'text', files }, valFraction: 0.1 } });

  test('is of tokens and boundaries: not of names, but of text, order and split', async () => {
    const plain = await fingerprint();
    writeFileSync(join(folder, 'same.txt'), text);
    writeFileSync(join(folder, 'other.txt'), text.replace('so on', 'on so'));
    expect(await fingerprint(source('same.txt'))).toBe(plain);
    const others = await Promise.all([
      fingerprint(source('other.txt')),
      fingerprint(source('same.txt', 'other.txt')),
      fingerprint(source('other.txt', 'same.txt')),
      fingerprint({ data: { ...source('text.txt').data, valFraction: 0.2 } }),
      fingerprint({ data: { ...source('text.txt').data, documents: 'separate' } }),
    ]);
    expect(new Set([plain, ...others]).size).toBe(6);
  });
});

test('npm packages: speeches are packed as documents, the book is one text', async () => {
  const npm = (name: string) => ({ data: { source: { type: 'npm', package: name }, valFraction: 0.05 } });
  const [book, speeches] = await Promise.all(
    ['moby-dick', 'sotu'].map((name) => loadTrainingData(config(npm(`@stdlib/datasets-${name}`)), bytes)),
  );
  expect(book.summary).toMatch(/^139 texts joined, tokenizer bytes, 1,1/);
  expect(speeches.summary).toMatch(/^\d{3} documents, /);
  expect((book.trainingReader().next() as Batch).cuSeqlens).toBeUndefined();
  expect((speeches.trainingReader().next() as Batch).cuSeqlens).toBeDefined();
});
