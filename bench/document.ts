/** The page of all figures, `docs/speed.md`: a section for each suite, replaced when the suite is measured again. */
import type { Row } from './harness.js';
import { markdown } from './table.js';

const HEAD = [
  '# Speed',
  'Written by `npm run bench -- all --write docs/speed.md`, or a section of it by the suite of that name; not edited by hand.',
  'Every comparison is a ratio in one run: both sides take turns, repetition by repetition, each in a process of its own, and the tests of what is measured were green before. `peer / ours` above 1 means that ours is faster. Each section ends with where we lose.',
].join('\n\n');

/**
 * A suite's table, what ran where, and a plain list of what is slower than its peer.
 * @param versions lines that say what ran
 */
export function speedSection(rows: readonly Row[], versions: readonly string[], date = new Date()): string {
  return [
    `## ${rows[0].suite}`,
    `Measured on ${date.toISOString().slice(0, 10)}: ${versions.join('; ')}.`,
    markdown([...rows]),
    '### Where we lose',
    losses(rows),
  ].join('\n\n');
}

/**
 * The page with the section in the place of an older one of its suite, or after all others.
 * @param page as it was; undefined where there is none
 */
export function withSection(page: string | undefined, section: string): string {
  const [, ...old] = (page ?? '').split(/^(?=## )/m);
  const title = (text: string) => text.slice(0, text.indexOf('\n'));
  const sections = old.map((text) => text.trimEnd());
  const at = sections.findIndex((text) => title(text) === title(section));
  const all = at < 0 ? [...sections, section] : sections.with(at, section);
  return `${[HEAD, ...all].join('\n\n')}\n`;
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

const place = ({ case: name, pass, T }: Row) => [name, pass, T !== undefined && `T=${T}`].filter(Boolean).join(' ');
