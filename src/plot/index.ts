/** Line plots as SVG, drawn by echarts without a browser. The package is the user's to install: only plots need it. */
import type * as ECharts from 'echarts';
import { importOptional } from '../backend/optional.js';

/** An axis; values of a logarithmic one that are not above 0 are left out. */
export interface PlotAxis {
  name: string;
  log?: boolean;
  min?: number;
  max?: number;
}

/** One line. */
export interface PlotSeries {
  name: string;
  points: readonly (readonly [number, number])[];
  /** Default: the next of the palette. */
  color?: string;
  /** Default 1.5. */
  width?: number;
  dashed?: boolean;
}

export interface LinePlot {
  title: string;
  x: PlotAxis;
  y: PlotAxis;
  series: readonly PlotSeries[];
  /** Pixels; default 760 x 420. */
  width?: number;
  height?: number;
}

/** The SVG of a plot, as text. @throws Error naming the remedy where echarts is not installed */
export async function linePlot({ title, x, y, series, width = 760, height = 420 }: LinePlot): Promise<string> {
  const { init } = await importOptional<typeof ECharts>(
    'echarts',
    'plots are drawn by the package echarts, which is not installed; npm install echarts',
  );
  const chart = init(null, null, { renderer: 'svg', ssr: true, width, height });
  chart.setOption({
    animation: false,
    backgroundColor: '#ffffff',
    color: ['#6b8fb8', '#c0392b', '#3b8a5a', '#b9770e', '#7d5ba6', '#555555'],
    title: { text: title, left: 'center', textStyle: { fontSize: 15 } },
    legend: { ...names(series, width), icon: 'rect', itemWidth: 18, itemHeight: 3, itemGap: 14 },
    grid: { left: 70, right: series.length > BESIDE ? BESIDE_WIDTH : 30, top: 70, bottom: 50 },
    xAxis: axis(x, 28),
    yAxis: axis(y, 48),
    series: series.map(({ name, points, color, width: lineWidth = 1.5, dashed = false }) => ({
      type: 'line' as const,
      name,
      showSymbol: false,
      clip: true,
      data: points.filter(([px, py]) => (!x.log || px > 0) && (!y.log || py > 0)).map((point) => [...point]),
      lineStyle: { width: lineWidth, type: dashed ? ('dashed' as const) : ('solid' as const), ...(color && { color }) },
      ...(color && { itemStyle: { color } }),
    })),
  });
  const svg = chart.renderToSVGString();
  chart.dispose();
  return `${svg}\n`;
}

/** More lines than these are named beside the plot, fewer above it. */
const BESIDE = 4;
const BESIDE_WIDTH = 260;

const names = ({ length }: readonly PlotSeries[], width: number) =>
  length > BESIDE ? { orient: 'vertical' as const, left: width - BESIDE_WIDTH + 15, top: 'middle' } : { top: 32 };

const axis = ({ name, log = false, min, max }: PlotAxis, nameGap: number) => ({
  type: log ? ('log' as const) : ('value' as const),
  name,
  nameLocation: 'middle' as const,
  nameGap,
  min,
  max,
  ...(log && { axisLabel: { formatter: power } }),
  // decades between labels; left to itself echarts may label two ends and little else
  ...(log && min && max && { interval: Math.ceil(Math.log10(max / min) / 6) }),
});

/** 0.001 as 1e-3; 1, 10 and 100 as they are. */
const power = (value: number): string =>
  value >= 1 && value <= 100 ? String(value) : value.toExponential(0).replace('+', '');
