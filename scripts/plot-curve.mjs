#!/usr/bin/env node
/**
 * node scripts/plot-curve.mjs <metrics.jsonl>... <out.svg> [--name <text>]... [--title <text>] [--gzip <bits per byte>]
 * Draws training and held-out bits per byte of one or more runs against bytes read; --gzip adds a line to compare with.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { init } from 'echarts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    title: { type: 'string', default: '' },
    gzip: { type: 'string' },
    name: { type: 'string', multiple: true, default: [] },
  },
});
const [from, to] = [positionals.slice(0, -1), positionals.at(-1)];
if (from.length === 0 || values.name.length > from.length)
  throw new Error(
    'usage: node scripts/plot-curve.mjs <metrics.jsonl>... <out.svg> [--name text]... [--title text] [--gzip bits]',
  );

const COLORS = [
  ['#6b8fb8', '#c0392b'],
  ['#9aa5b1', '#1f6f3f'],
  ['#c9b58a', '#7a3e9d'],
];

/** Curves of one run: [million bytes read, bits per byte]. */
function curvesOf(file) {
  const rows = readFileSync(file, 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  const { tokens, step } = rows.filter(({ kind }) => kind === 'train').at(-1);
  const points = (kind) =>
    rows.filter((row) => row.kind === kind && !row.whole).map((row) => [(row.step * tokens) / step / 1e6, row.bpb]);
  return { train: points('train'), held: points('eval') };
}

const runs = from.map(curvesOf);
const all = runs.flatMap(({ train, held }) => [...held, ...train.slice(Math.floor(train.length / 50))]);
const bottom = Math.floor(Math.min(...all.map(([, bpb]) => bpb)) * 10) / 10;
const ends = runs.map(({ held }) => held.at(-1)[0]);

const series = runs.flatMap(({ train, held }, i) => {
  const [thin, thick] = COLORS[i % COLORS.length];
  const label = (text) => (values.name[i] ? `${values.name[i]}, ${text}` : text);
  return [
    { name: label('training batch'), data: train, color: thin, lineStyle: { width: 1, opacity: 0.45 } },
    { name: label('held-out text'), data: held, color: thick, lineStyle: { width: 2.5 } },
  ];
});
if (values.gzip)
  series.push({
    name: 'gzip -9, held-out text',
    data: [0, Math.max(...ends)].map((x) => [x, +values.gzip]),
    color: '#555555',
    lineStyle: { type: 'dashed' },
  });

const chart = init(null, null, { renderer: 'svg', ssr: true, width: 760, height: 380 });
chart.setOption({
  animation: false,
  backgroundColor: '#ffffff',
  title: { text: values.title, left: 'center', textStyle: { fontSize: 15 } },
  legend: {
    top: 30,
    icon: 'rect',
    itemWidth: 18,
    itemHeight: 3,
    itemGap: runs.length > 1 ? 18 : 28,
    left: 'center',
    width: 640,
  },
  grid: { left: 60, right: 30, top: runs.length > 1 ? 112 : 64, bottom: 48 },
  xAxis: {
    type: 'value',
    name: 'million bytes read',
    nameLocation: 'middle',
    nameGap: 28,
    max: 'dataMax',
    axisLabel: { formatter: (x) => String(Math.round(x * 10) / 10) },
  },
  yAxis: { type: 'value', name: 'bits per byte', min: bottom, max: Math.max(4, bottom + 2) },
  series: series.map((s) => ({ type: 'line', showSymbol: false, clip: true, ...s })),
});
writeFileSync(to, `${chart.renderToSVGString()}\n`);
chart.dispose();
