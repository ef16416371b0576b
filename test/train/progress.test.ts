import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test, vi } from 'vitest';
import { MetricsLog } from '../../src/train/metrics.js';
import { createProgress, formatBytes, formatDuration, formatStep, Pace } from '../../src/train/progress.js';
import { temporaryFolder } from '../support/run.js';

const folder = temporaryFolder();

/** A stream that keeps what is written to it. */
function stream(isTTY: boolean) {
  const out = { text: '', isTTY, columns: 100 };
  const write = (text: string) => {
    out.text += text;
    return true;
  };
  return Object.assign(out, { write });
}

/** What a terminal shows of a text with control sequences: its lines, without empty ones at the end. */
function shown(text: string): string[] {
  const visible = text.replaceAll('\u001b', '␛');
  const lines = [''];
  let [row, column] = [0, 0];
  const put = (characters: string) => {
    lines[row] = lines[row].slice(0, column).padEnd(column) + characters + lines[row].slice(column + characters.length);
    column += characters.length;
  };
  for (const [token, number, command] of visible.matchAll(/␛\[\??(\d*)([A-Za-z])|[\r\n]|[^␛\r\n]+/g)) {
    lines[row] ??= '';
    if (token === '\r') column = 0;
    else if (token === '\n') [row, column] = [row + 1, 0];
    else if (command === undefined) put(token);
    else if (command === 'G') column = Number(number) - 1;
    else if (command === 'A') row -= Number(number);
    else if (command === 'K') lines[row] = number === '2' ? '' : lines[row].slice(0, column);
    else if (command === 'J') lines.splice(row, Number.POSITIVE_INFINITY, lines[row].slice(0, column));
    else if (!'hl'.includes(command)) throw new Error(`the terminal knows no ${JSON.stringify(token)}`);
  }
  while (lines.at(-1) === '') lines.pop();
  return lines;
}

test('elsewhere than on a terminal: the lines and nothing else', () => {
  const out = stream(false);
  const progress = createProgress(10, 0, out as unknown as NodeJS.WriteStream);
  progress.line('one');
  progress.tick({ step: 1, loss: 1 });
  progress.line('two');
  progress.stop();
  expect(out.text).toBe('one\ntwo\n');
});

test('on a terminal: lines, and below them a bar that moves; it goes when it is stopped', () => {
  const out = stream(true);
  const progress = createProgress(10, 2, out as unknown as NodeJS.WriteStream);
  const long = 'x'.repeat(150);
  progress.line('first');
  progress.tick({ step: 5, loss: 1.25 });
  progress.line(`${long}\nsecond`);
  expect(shown(out.text).slice(0, -1)).toEqual(['first', long, 'second']);
  expect(shown(out.text).at(-1)).toMatch(/^[█░]{40} 50% {2}step 5\/10 {2}loss 1\.2500 {2}ETA /);
  progress.tick({ step: 10, loss: 1 });
  progress.line('third');
  progress.stop();
  progress.line('the end');
  progress.stop();
  expect(shown(out.text)).toEqual(['first', long, 'second', 'third', 'the end']);
});

test('figures for people', () => {
  const report = { step: 7, steps: 2000, loss: 1.23456, bpb: 1.7811, learningRate: 3e-3, gradNorm: 0.533 };
  expect(formatStep({ ...report, unitsPerSecond: 4210.4, unit: 'tokens', memoryBytes: 312e6, etaSeconds: 130 })).toBe(
    'step    7/2000  loss 1.2346  bpb 1.781  lr 3.00e-3  |g| 0.53  4,210 tok/s  312 MB  ETA 2m10s',
  );
  expect([0, 59.4, 59.6, 3600, 4000].map(formatDuration)).toEqual(['0s', '59s', '1m00s', '1h00m', '1h06m']);
  expect([999, 1e3, 12345, 2.5e9].map(formatBytes)).toEqual(['999 B', '1.00 kB', '12.3 kB', '2.50 GB']);
});

test('pauses count in the time left, not in the tokens per second', async () => {
  vi.useFakeTimers({ toFake: ['performance'] });
  const pace = new Pace(10, 20, 100);
  vi.advanceTimersByTime(2000);
  await pace.pause(async () => void vi.advanceTimersByTime(3000));
  expect(pace.lap(12)).toEqual({ unitsPerSecond: 100, etaSeconds: 20 }); // 2 steps: 200 tokens in 2 s of training, 5 s in all
  vi.advanceTimersByTime(500);
  expect(pace.lap(13).unitsPerSecond).toBe(200);
  vi.useRealTimers();
});

test('metrics: a resumed run drops what came after, a final score, and a line cut by a crash', () => {
  const log = new MetricsLog(join(folder, 'metrics.jsonl'));
  expect(log.read()).toEqual([]);
  log.truncateAfter(5); // no file yet
  const rows = [1, 2, 3].map((step) => ({ kind: 'train' as const, step, loss: 1 / step, bpb: 1 }));
  for (const row of rows) log.append(row);
  log.append({ kind: 'final', step: 2, loss: 1, bpb: 1 });
  const whole = rows.map((row) => `${JSON.stringify(row)}\n`).join('');
  log.truncateAfter(3);
  expect(log.read()).toEqual(rows);
  writeFileSync(log.file, `${whole}{"kind":"train","st`);
  log.truncateAfter(2);
  expect(log.read()).toEqual(rows.slice(0, 2));
  log.append(rows[2]);
  expect(log.read()).toEqual(rows);
});
