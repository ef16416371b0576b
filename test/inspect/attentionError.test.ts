/** The error table of Scatterbrain: what it says of data with and without structure, and that docs/attention.md has it as it is printed. */
import { readFileSync } from 'node:fs';
import { beforeAll, expect, test } from 'vitest';
import { errorTable } from '../../src/cli/attentionError.js';
import { useBackend } from '../../src/index.js';
import { attentionErrorStudy } from '../../src/inspect/index.js';

beforeAll(() => useBackend('wasm'));

test('the regimes: features win where rows are flat, exact pairs where they are peaked, and the same seed gives the same numbers', () => {
  const study = () => attentionErrorStudy({ temps: [0.5, 8], tokens: 256, draws: 2, seed: 3 });
  const rows = study();
  expect(rows.map(({ kind, temp }) => [kind, temp])).toEqual([
    ['clusters', 0.5],
    ['clusters', 8],
    ['AR(1)', 0.5],
    ['AR(1)', 8],
  ]);
  for (const { temp, sparse, lowRank, sum, entropy } of rows) {
    if (temp === 0.5) expect(lowRank).toBeLessThan(sparse);
    else expect(sparse).toBeLessThan(lowRank);
    expect(sum).toBeLessThan(Math.max(sparse, lowRank));
    expect(entropy).toBeLessThan(Math.log(256));
  }
  expect(rows[1].ownCluster).toBeLessThan(rows[1].sum);
  expect(rows[1].recall).toBeGreaterThan(0.3);
  expect(study()).toEqual(rows);
});

test('docs/attention.md: rows of temperature 3, made again', () => {
  const page = readFileSync(new URL('../../docs/attention.md', import.meta.url), 'utf8');
  const cells = (text: string) =>
    text
      .split('\n')
      .filter((line) => /^\| (clusters|AR\(1\)) +\| 3 /.test(line))
      .map((line) => line.split('|').map((cell) => cell.trim()));
  const again = cells(errorTable(attentionErrorStudy({ temps: [3] })));
  expect(again).toHaveLength(2);
  expect(cells(page)).toEqual(again);
});
