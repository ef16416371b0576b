import { describe, expect, test } from 'vitest';
import { speedSection, withSection } from '../../bench/document.js';
import type { Row } from '../../bench/harness.js';
import { markdown } from '../../bench/table.js';

const machine = {
  backend: 'wasm',
  build: 'relaxed',
  native: 'off',
  cpu: 'Some CPU',
  cores: 2,
  node: '20.20.2',
  reps: 15,
};
const row = (fields: Partial<Row>): Row => ({ ...machine, suite: 'train', case: 'wasm', ...fields });
const won = row({
  T: 512,
  pass: 'fwdbwd',
  ms: 10,
  peer: 'slow',
  peerMs: 30,
  ratio: 3,
  spread: { ms: [9, 12], peerMs: [29, 31] },
});
const lost = row({
  T: 512,
  ms: 10,
  peer: 'fast',
  peerMs: 5,
  ratio: 0.5,
  memoryBytes: 2_000_000,
  tokensPerSecond: 1234.5,
});
const lostMore = row({
  case: 'native',
  ms: 10,
  peer: 'faster',
  peerMs: 2,
  ratio: 0.2,
  native: 'OpenBLAS',
  note: 'a floor',
});
const absent = row({ ms: 10, peer: 'absent', skipped: 'it is not installed' });

describe('markdown', () => {
  const lines = markdown([won, lost, absent, row({ case: 'flatness', maxOverMin: 1.0625 })]).split('\n');

  test('heads with the machine', () => expect(lines[0]).toContain('train: Some CPU, 2 cores, Node 20.20.2'));

  test('has a line for every comparison, with its other facts at the end', () => {
    expect(lines).toContain('| wasm | fwdbwd | 512 | 10.0 (9.00..12.0) | slow | 30.0 (29.0..31.0) | 3.00 x |  |');
    const facts = 'memoryBytes 2.00 MB, tokensPerSecond 1235';
    expect(lines).toContain(`| wasm |  | 512 | 10.0 | fast | 5.00 | 0.50 x | ${facts} |`);
  });

  test('says why there is no figure', () =>
    expect(lines).toContain('| wasm |  |  | 10.0 | absent | skipped: it is not installed |  |  |'));

  test('lists rows that compare nothing', () => expect(lines.at(-1)).toBe('- flatness: maxOverMin 1.06'));

  test('names every library that multiplied', () =>
    expect(markdown([lost, lostMore]).split('\n')[0]).toContain('native products off or OpenBLAS'));
});

describe('speedSection', () => {
  const rows = [won, lost, absent, lostMore];
  const section = speedSection(rows, ['Node 20', 'Linux'], new Date('2026-01-02T03:04:05Z'));

  test('says when and with what', () => expect(section).toContain('Measured on 2026-01-02: Node 20; Linux.'));

  test('lists what was lost, the worst first, and nothing else', () => {
    const end = section.slice(section.indexOf('### Where we lose')).split('\n');
    expect(end.filter((line) => line.startsWith('-'))).toEqual([
      '- native: faster takes 0.20 of our time (a floor)',
      '- wasm T=512: fast takes 0.50 of our time',
    ]);
  });

  test('owns up to no loss only where there is none', () =>
    expect(speedSection([won], [])).toContain('In none of the comparisons above.'));
});

describe('withSection', () => {
  const of = (suite: string, ms: number) => speedSection([{ ...won, suite, ms }], []);
  const page = ['gla', 'train', 'decode'].reduce<string | undefined>(
    (p, suite) => withSection(p, of(suite, 10)),
    undefined,
  );

  test('replaces the section of its suite alone, where it stands', () => {
    const again = withSection(page, of('train', 77));
    expect(again.match(/^## .*/gm)).toEqual(['## gla', '## train', '## decode']);
    expect(again.replace('| 77.0 (', '| 10.0 (')).toBe(page);
  });

  test('begins a page, and keeps what the head says up to date', () => {
    expect(withSection('# Old head\n\n## gla\n\nold\n', of('gla', 10))).toBe(withSection(undefined, of('gla', 10)));
  });
});
