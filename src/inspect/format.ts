/** The conditioning of a model as tables for people. */
import { table } from '../models/table.js';
import type { Conditioning } from './conditioning.js';

export function formatConditioning({ tokens, positions, layers }: Conditioning): string {
  return [
    `${tokens.toLocaleString('en')} tokens read, ${positions.length} of them looked at in every head`,
    '',
    ...table([
      ['layer', 'heads', 'solver', 'ridge', 'residual', 'worst', 'bound', 'condition', 'worst', 'bound'],
      ...layers.map(({ layer, heads, solver, numIterations, ridgeRatio, residual, condition }) => [
        ...[`${layer}`, `${heads}`, solver === 'exact' ? solver : `${numIterations} steps`, `${ridgeRatio}`],
        ...[residual.median, residual.max, residual.bound].map(small),
        ...[condition.median, condition.max, condition.bound].map((x) => x.toFixed(1)),
      ]),
    ]),
    'residual: |q - (H + lambda I) x| / |q|, the median and the worst; condition: that of H + lambda I',
    '',
    ...table([
      ['layer', 'head', 'half-life, shortest tenth', 'median', 'longest tenth'],
      ...layers.flatMap(({ layer, halfLives }) =>
        halfLives.map(({ p10, median, p90 }, head) => [`${layer}`, `${head}`, ...[p10, median, p90].map(tokensOf)]),
      ),
    ]),
    'half-life: tokens after which half is forgotten, by the decays at all tokens',
  ].join('\n');
}

const small = (x: number) => (x === 0 ? '0' : x.toExponential(1));

/** Three digits, thousands apart. */
function tokensOf(x: number): string {
  if (x === Number.POSITIVE_INFINITY) return 'never';
  if (x >= 100) return Math.round(x).toLocaleString('en');
  return x < 0.01 ? x.toExponential(1) : x.toPrecision(3);
}
