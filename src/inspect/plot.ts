/** Residuals of the ridge regressions against steps of the iteration, as an SVG picture: for each layer the worst and, thin, the median. */
import { linePlot, type PlotSeries } from '../plot/index.js';
import type { Conditioning } from './conditioning.js';

/** Of the layers, in turn. */
const COLORS = ['#3b78b4', '#c0392b', '#2f9e62', '#b8860b', '#7d5ba6', '#20a4a8'];

/** @throws Error naming the remedy where the package that draws is not installed */
export async function plotConditioning({ tokens, layers }: Conditioning, title: string): Promise<string> {
  const points = (residuals: readonly number[]) => residuals.map((residual, steps) => [steps, residual] as const);
  const bounds = new Map(layers.map(({ ridgeRatio, byIterations }) => [ridgeRatio, byIterations.bound]));
  const series = layers.flatMap(({ layer, byIterations: { max, median } }, i): PlotSeries[] => {
    const shared = { name: `layer ${layer}`, color: COLORS[i % COLORS.length] }; // lines of one name share a place in the legend
    return [
      { ...shared, points: points(max), width: 2 },
      { ...shared, points: points(median), width: 0.7 },
    ];
  });
  const limits = [...bounds].map(([ridge, bound]) => ({ name: `bound at ridge ${ridge}`, points: points(bound) }));
  return linePlot({
    title: `${title}, ${tokens.toLocaleString('en')} tokens`,
    x: { name: 'Chebyshev steps', max: Math.max(...layers.map(({ byIterations }) => byIterations.bound.length)) - 1 },
    y: { name: 'relative residual', log: true },
    series: [...series, ...limits.map((limit) => ({ ...limit, color: '#555555', dashed: true }))],
  });
}
