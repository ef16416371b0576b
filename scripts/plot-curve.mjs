#!/usr/bin/env node
/**
 * node scripts/plot-curve.mjs <metrics.jsonl> <out.svg> [--title <text>] [--gzip <bits per byte>]
 * Draws training and held-out bits per byte against tokens seen; --gzip adds a line to compare with.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { init } from 'echarts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { title: { type: 'string', default: '' }, gzip: { type: 'string' } },
});
const [from, to] = positionals;
if (!to) throw new Error('usage: node scripts/plot-curve.mjs <metrics.jsonl> <out.svg> [--title text] [--gzip bits]');

const rows = readFileSync(from, 'utf8')
  .trim()
  .split('\n')
  .map((line) => JSON.parse(line));
const train = rows.filter(({ kind }) => kind === 'train');
const tokensPerStep = train.at(-1).tokens / train.at(-1).step;
const points = (kind) =>
  rows.filter((row) => row.kind === kind && !row.whole).map(({ step, bpb }) => [(step * tokensPerStep) / 1e6, bpb]);
const held = points('eval');
const all = [...held, ...points('train').slice(Math.floor(train.length / 50))].map(([, bpb]) => bpb);
const bottom = Math.floor(Math.min(...all) * 10) / 10;

const series = [
  { name: 'training batch', data: points('train'), lineStyle: { width: 1, opacity: 0.45 } },
  { name: 'held-out text', data: held, lineStyle: { width: 2.5 } },
];
if (values.gzip)
  series.push({
    name: 'gzip -9, held-out text',
    data: [
      [0, +values.gzip],
      [held.at(-1)[0], +values.gzip],
    ],
    lineStyle: { type: 'dashed' },
  });

const chart = init(null, null, { renderer: 'svg', ssr: true, width: 760, height: 380 });
chart.setOption({
  animation: false,
  backgroundColor: '#ffffff',
  color: ['#6b8fb8', '#c0392b', '#555555'],
  title: { text: values.title, left: 'center', textStyle: { fontSize: 15 } },
  legend: { top: 30, icon: 'rect', itemWidth: 18, itemHeight: 3, itemGap: 28 },
  grid: { left: 60, right: 30, top: 64, bottom: 48 },
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
