/** The page of all figures, `docs/speed.md`. */
import type { Row } from './harness.js';
import { markdown } from './table.js';

/**
 * Every suite's table, what ran where, and a plain list of what is slower than its peer.
 * @param measured the rows of each suite
 * @param versions lines that say what ran
 */
export function speedDocument(measured: readonly Row[][], versions: readonly string[], date = new Date()): string {
  return [
    '# Speed',
    'Written by `npm run bench -- all --write docs/speed.md`; not edited by hand.',
    'Every comparison is a ratio in one run: both sides take turns, repetition by repetition, each in a process of its own, and the tests of what is measured were green before. `peer / ours` above 1 means that ours is faster.',
    `Measured on ${date.toISOString().slice(0, 10)}:`,
    versions.map((line) => `- ${line}`).join('\n'),
    ...measured.flatMap((rows) => [`## ${rows[0]?.suite ?? 'nothing measured'}`, markdown([...rows])]),
    '## Where we lose',
    losses(measured.flat()),
    '',
  ].join('\n\n');
}

/** Comparisons with a ratio below 1, the worst first. */
function losses(rows: readonly Row[]): string {
  const lost = rows.filter(({ ratio }) => ratio !== undefined && ratio < 1);
  if (lost.length === 0) return 'In none of the comparisons above.';
  return lost
    .toSorted((a, b) => (a.ratio as number) - (b.ratio as number))
    .map(
      (row) =>
        `- ${place(row)}: ${row.peer} takes ${(row.ratio as number).toFixed(2)} of our time${row.note ? ` (${row.note})` : ''}`,
    )
    .join('\n');
}

const place = ({ suite, case: name, pass, T }: Row) =>
  [suite, name, pass, T !== undefined && `T=${T}`].filter(Boolean).join(' ');
