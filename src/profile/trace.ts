/** A profile in Chrome's trace event format: open it in ui.perfetto.dev or chrome://tracing. */
import type { Span } from './recorder.js';

/** One complete event (https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU): times in microseconds. */
export interface TraceEvent {
  ph: 'X';
  name: string;
  cat: Span['kind'];
  ts: number;
  dur: number;
  pid: number;
  tid: number;
  args: { bytes?: number };
}

/** The trace as JSON: steps hold phases, phases hold kernels, all on one track. */
export function traceJson(spans: readonly Span[]): string {
  const origin = Math.min(...spans.filter(({ kind }) => kind === 'step').map(({ start }) => start));
  const traceEvents = [...spans]
    .reverse() // an outer span before those inside it
    .sort((a, b) => a.start - b.start)
    .map(
      ({ name, kind, start, duration, bytes }): TraceEvent => ({
        ...{ ph: 'X', name, cat: kind, ts: (start - origin) * 1e3, dur: duration * 1e3, pid: 1, tid: 1 },
        args: kind === 'kernel' ? { bytes } : {},
      }),
    );
  return JSON.stringify({ displayTimeUnit: 'ms', traceEvents });
}
