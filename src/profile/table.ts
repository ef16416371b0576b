/** The spans of a profile as one table: where the time of a step goes. */
import type { Span } from './recorder.js';

/** Figures per step. */
export interface Row {
  phase: string;
  /** A kernel; `outside kernels` for the JavaScript around them; `total` for a whole phase, or for the step where `phase` is `step`. */
  op: string;
  calls: number;
  ms: number;
  /** Of the step's time. */
  share: number;
  /** Bytes of new tensors. */
  bytes: number;
}

/** Rows of the mean step: of each phase its total, then its parts by time; last the step. */
export function profileRows(spans: readonly Span[]): Row[] {
  const steps = spans.filter(({ kind }) => kind === 'step');
  const stepMs = sum(steps, 'duration') / steps.length;
  const row = (phase: string, op: string, part: readonly Span[]): Row => {
    const ms = sum(part, 'self') / steps.length;
    const calls = part.filter(({ kind }) => kind === 'kernel').length / steps.length;
    return { phase, op, calls, ms, share: ms / stepMs, bytes: sum(part, 'bytes') / steps.length };
  };
  const phases = groupBy(
    spans.filter(({ kind }) => kind !== 'step'),
    ({ phase }) => phase,
  );
  const parts = [...phases].flatMap(([phase, inside]) => {
    const ops = groupBy(inside, ({ kind, name }) => (kind === 'kernel' ? name : 'outside kernels'));
    const rows = [...ops].map(([op, part]) => row(phase, op, part)).sort((a, b) => b.ms - a.ms);
    return [row(phase, 'total', inside), ...rows];
  });
  return [...parts, row('step', 'total', spans)];
}

/** Kernels below this share of a step are joined in one line of their phase. */
const SMALL = 0.002;

/** The rows as aligned text. */
export function formatProfile(rows: readonly Row[], title: string): string {
  const lines = [['phase', 'op', 'calls/step', 'ms/step', 'share', 'MB out']];
  for (const [phase, all] of groupBy(rows, (row) => row.phase)) {
    const small = all.filter(({ op, share }) => isKernel(op) && share < SMALL);
    const joined = small.length > 1 ? [joinRows(phase, small)] : small;
    for (const row of [...all.filter((r) => !small.includes(r)), ...joined]) lines.push(cells(row));
  }
  const widths = lines[0].map((_, column) => Math.max(...lines.map((line) => line[column].length)));
  const aligned = lines.map((line) =>
    line.map((cell, c) => (c < 2 ? cell.padEnd(widths[c]) : cell.padStart(widths[c]))).join('  '),
  );
  return [title, ...aligned].join('\n');
}

const isKernel = (op: string) => op !== 'total' && op !== 'outside kernels';

function joinRows(phase: string, rows: readonly Row[]): Row {
  const total = (key: 'calls' | 'ms' | 'share' | 'bytes') => sum(rows, key);
  return {
    ...{ phase, op: `${rows.length} others`, calls: total('calls') },
    ...{ ms: total('ms'), share: total('share'), bytes: total('bytes') },
  };
}

function cells({ phase, op, calls, ms, share, bytes }: Row): string[] {
  return [
    op === 'total' ? phase : '',
    op,
    op === 'outside kernels' ? '' : calls.toFixed(Number.isInteger(calls) ? 0 : 1),
    ms.toFixed(2),
    `${(100 * share).toFixed(1)}%`,
    (bytes / 1e6).toFixed(1),
  ];
}

function groupBy<T>(list: readonly T[], key: (item: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const item of list) {
    const group = groups.get(key(item));
    if (group) group.push(item);
    else groups.set(key(item), [item]);
  }
  return groups;
}

const sum = <K extends string>(list: readonly Record<K, number>[], key: K) =>
  list.reduce((total, item) => total + item[key], 0);
