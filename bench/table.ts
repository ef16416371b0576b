/** Rows as Markdown, for a person or a document. */
import { formatBytes } from '../src/train/progress.js';
import type { Row } from './harness.js';

/** What a row of the table shows in columns of its own. */
const COLUMNS = ['case', 'pass', 'T', 'ms', 'peer', 'peerMs', 'ratio', 'spread', 'skipped'];
/** What all rows of a suite share. */
const COMMON = ['suite', 'backend', 'build', 'native', 'cpu', 'cores', 'node', 'reps'];

/** A line with what all rows share, the comparisons as one table, and the other rows as a list. */
export function markdown(rows: Row[]): string {
  if (rows.length === 0) return 'no rows';
  const last = rows[rows.length - 1];
  const head = `${last.suite}: ${last.cpu}, ${last.cores} cores, Node ${last.node}, backend ${last.backend}, ${last.build} build, native products ${[...new Set(rows.map(({ native }) => native))].join(' or ')}; medians with fastest and slowest of ${rows[0].reps ?? '?'} in brackets`;
  const comparisons = rows.filter((row) => row.peer);
  const cells = comparisons.map((row) => [
    row.case,
    row.pass,
    row.T,
    timing(row.ms, row.spread?.ms),
    row.peer,
    ...outcome(row),
    also(row),
  ]);
  const columns = ['case', 'pass', 'T', 'ours ms', 'peer', 'peer ms', 'peer / ours', 'also'];
  const table = [columns, Array(columns.length).fill('---'), ...cells];
  const facts = rows.filter((row) => !row.peer).map((row) => `- ${fact(row)}`);
  return [head, '', ...table.map((row) => `| ${row.join(' | ')} |`), '', ...facts].join('\n');
}

function outcome({ peerMs, spread, ratio, skipped }: Row): [string, string] {
  return skipped ? [`skipped: ${skipped}`, ''] : [timing(peerMs, spread?.peerMs), `${ratio?.toFixed(2)} x`];
}

function timing(ms: number | undefined, spread: [number, number] | undefined): string {
  if (ms === undefined) return '';
  return spread ? `${digits(ms)} (${digits(spread[0])}..${digits(spread[1])})` : digits(ms);
}

const digits = (ms: number) => (ms < 100 ? ms.toPrecision(3) : ms.toFixed(0));

/** The facts of a comparison that have no column. */
const also = (row: Row) => list(row, [...COMMON, ...COLUMNS]);

const fact = (row: Row) => `${row.case}: ${list(row, [...COMMON, 'case'])}`;

function list(row: Row, without: string[]): string {
  const own = Object.entries(row).filter(([name]) => !without.includes(name));
  return own.map(([name, value]) => `${name} ${show(value, name)}`).join(', ');
}

function show(value: unknown, name: string): string {
  if (Array.isArray(value)) return value.map((item) => show(item, name)).join(' ');
  if (typeof value !== 'number') return String(value);
  if (/bytes$/i.test(name)) return formatBytes(value);
  return Number.isInteger(value) ? String(value) : digits(value);
}
