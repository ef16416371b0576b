/** Rows as Markdown, for a person or a document. */
import type { Row } from './harness.js';

const COMMON = ['suite', 'backend', 'build', 'native', 'cpu', 'cores', 'node', 'reps'];

/** A line with what all rows share, the comparisons as one table, and the other rows as a list. */
export function markdown(rows: Row[]): string {
  if (rows.length === 0) return 'no rows';
  const last = rows[rows.length - 1];
  const head = `${last.suite}: ${last.cpu}, ${last.cores} cores, Node ${last.node}, backend ${last.backend}, ${last.build} build, native products ${last.native}; medians with fastest and slowest of ${rows[0].reps ?? '?'} in brackets`;
  const comparisons = rows.filter((row) => row.peer);
  const cells = comparisons.map((row) => [
    row.case,
    row.pass,
    row.T,
    timing(row.ms, row.spread?.ms),
    row.peer,
    ...outcome(row),
  ]);
  const table = [['case', 'pass', 'T', 'ours ms', 'peer', 'peer ms', 'peer / ours'], Array(7).fill('---'), ...cells];
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

function fact(row: Row): string {
  const own = Object.entries(row).filter(([name]) => name !== 'case' && !COMMON.includes(name));
  return `${row.case}: ${own.map(([name, value]) => `${name} ${show(value)}`).join(', ')}`;
}

function show(value: unknown): string {
  if (typeof value === 'number' && !Number.isInteger(value)) return value.toPrecision(3);
  return Array.isArray(value) ? value.map(show).join(' ') : String(value);
}
