/** docs/ssm.md says what the command prints. */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { transferTable } from '../../src/cli/ssmTransfer.js';
import { initialS4d, initialS5, interleaved, Rng, transferStudy } from '../../src/ssm/index.js';

const page = readFileSync(new URL('../../docs/ssm.md', import.meta.url), 'utf8');
const rows = (text: string) =>
  text
    .split('\n')
    .filter((line) => /^\| (16|32) /.test(line))
    .map((line) => line.split('|').map((cell) => cell.trim()));

test('the table of 16 and 32 states, made again', () => {
  const again = rows(transferTable(transferStudy({ sizes: [16, 32] })));
  expect(again).toHaveLength(10);
  expect(rows(page)).toEqual(again);
});

test('the example', () => {
  const s4d = initialS4d({ hiddenSize: 64, stateSize: 64 }, new Rng(0));
  const s5 = initialS5({ hiddenSize: 64, stateSize: 64, blocks: 4, ptd: { epsAbs: 0.1 } }, new Rng(0));
  expect(interleaved(s4d.c)).toHaveLength(64 * 32 * 2);
  expect(s5.lambda.re.every((x) => x < 0)).toBe(true);
});
