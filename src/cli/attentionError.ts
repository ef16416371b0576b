import { writeFileSync } from 'node:fs';
import { useBackend } from '../backend/useBackend.js';
import { type AttentionErrors, attentionErrorStudy } from '../inspect/index.js';
import { type LinePlot, linePlot } from '../plot/index.js';

export interface AttentionErrorFlags {
  temps: number[];
  tokens: number;
  draws: number;
  seed: number;
  plot?: string;
  json: boolean;
}

/** `seqmix attention-error`: a Markdown table (or JSON) on stdout, progress on stderr. */
export async function runAttentionError({ plot, json, ...options }: AttentionErrorFlags): Promise<number> {
  if (options.tokens < 64 || options.tokens % 32 !== 0)
    throw new RangeError(`attention-error: tokens must be a multiple of 32, at least 64, got ${options.tokens}`);
  const bad = options.temps.find((temp) => !(temp > 0));
  if (bad !== undefined) throw new RangeError(`attention-error: temperatures must be positive, got ${bad}`);
  await useBackend('wasm');
  const progress = (kind: string, temp: number) => console.error(`${kind}: temperature ${temp}`);
  const rows = attentionErrorStudy({ ...options, progress });
  if (plot) writeFileSync(plot, await linePlot(errorPlot(rows)));
  console.log(json ? JSON.stringify(rows, null, 2) : errorTable(rows));
  return 0;
}

/** One row for each kind of data and temperature; the least of the three errors is bold. */
export function errorTable(rows: readonly AttentionErrors[]): string {
  const head = ['data', 'temperature', 'entropy', 'sparse', 'low-rank', 'sum', 'sum, own cluster', 'recall'];
  const cells = rows.map(({ kind, temp, entropy, sparse, lowRank, sum, ownCluster, recall }) => {
    const least = Math.min(sparse, lowRank, sum);
    const shown = (x: number) => (x === least ? `**${x.toFixed(3)}**` : x.toFixed(3));
    const rest = [ownCluster?.toFixed(3) ?? '', recall === undefined ? '' : recall.toFixed(2)];
    return [kind, String(temp), entropy.toFixed(2), ...[sparse, lowRank, sum].map(shown), ...rest];
  });
  return [head, head.map(() => '---'), ...cells].map((row) => `| ${row.join(' | ')} |`).join('\n');
}

const WAYS = [
  { name: 'sparse', of: (row: AttentionErrors) => row.sparse, color: '#c0392b' },
  { name: 'low-rank', of: (row: AttentionErrors) => row.lowRank, color: '#2e86c1' },
  { name: 'sum', of: (row: AttentionErrors) => row.sum, color: '#229954' },
];

function errorPlot(rows: readonly AttentionErrors[]): LinePlot {
  const kinds = [...new Set(rows.map(({ kind }) => kind))];
  return {
    title: 'Error of the attention matrix at a budget of 64 entries a row',
    x: { name: 'temperature' },
    y: { name: 'relative error', log: true, min: 0.05, max: 5 },
    series: kinds.flatMap((kind) =>
      WAYS.map(({ name, of, color }) => ({
        ...{ name: `${name}, ${kind}`, color, dashed: kind !== 'clusters' },
        points: rows.filter((row) => row.kind === kind).map((row) => [row.temp, of(row)] as const),
      })),
    ),
  };
}
