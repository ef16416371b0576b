/** Residuals of the ridge regressions against steps of the iteration, as an SVG picture. Node only: `echarts` is an optional package. */
import { importOptional } from '../backend/optional.js';
import type { Conditioning } from './conditioning.js';

const grey = { lineStyle: { type: 'dashed' as const, color: '#555555' }, itemStyle: { color: '#555555' } };

/** @throws Error with the remedy where `echarts` is not installed */
export async function plotConditioning({ tokens, layers }: Conditioning, title: string): Promise<string> {
  const { init } = await importOptional<typeof import('echarts')>(
    'echarts',
    'a plot needs the package echarts; install it with `npm i echarts@6`',
  );
  const points = (values: readonly number[]) => values.map((residual, steps) => [steps, residual]);
  const bounds = new Map(layers.map(({ ridgeRatio, byIterations }) => [ridgeRatio, byIterations.bound]));
  const line = (name: string, values: readonly number[], style: object) => ({ name, data: points(values), ...style });
  const series = [
    ...layers.flatMap(({ layer, byIterations: { max, median } }) => [
      line(`layer ${layer}`, max, { lineStyle: { width: 2 } }),
      line(`layer ${layer}`, median, { lineStyle: { width: 1, opacity: 0.5 } }),
    ]),
    ...[...bounds].map(([ridge, bound]) => line(`bound at ridge ${ridge}`, bound, grey)),
  ];
  const rows = Math.ceil((layers.length + bounds.size) / 6);
  const chart = init(null, null, { renderer: 'svg', ssr: true, width: 760, height: 380 + 22 * rows });
  chart.setOption({
    animation: false,
    backgroundColor: '#ffffff',
    color: ['#3b78b4', '#c0392b', '#2f9e62', '#b8860b', '#7d5ba6', '#20a4a8'],
    title: {
      text: title,
      subtext: `${tokens.toLocaleString('en')} tokens; thick: worst, thin: median`,
      left: 'center',
      textStyle: { fontSize: 15 },
    },
    legend: { top: 56, icon: 'rect', itemWidth: 18, itemHeight: 3, width: 640 },
    grid: { left: 74, right: 30, top: 64 + 22 * rows, bottom: 48 },
    xAxis: { type: 'value', name: 'Chebyshev steps', nameLocation: 'middle', nameGap: 28, max: 'dataMax' },
    yAxis: {
      ...{ type: 'log', name: 'relative residual', nameLocation: 'middle', nameGap: 54 },
      axisLabel: { formatter: (x: number) => (x === 1 ? '1' : x.toExponential(0)) },
    },
    series: series.map((one) => ({ type: 'line' as const, showSymbol: false, ...one })),
  });
  const svg = chart.renderToSVGString();
  chart.dispose();
  return `${svg}\n`;
}
