/** The scan in plain TensorFlow.js ops: three forms, differentiable by themselves, on every backend. */
import * as tf from '@tensorflow/tfjs';
import { cutEnd, pad } from '../chunks.js';
import { unstack } from '../unstack.js';
import type { LinearScanOutput, ScanCall } from './index.js';

/** A real number is [x], a complex one [re, im]: tensors of equal shape. */
type Numbers = tf.Tensor[];

/** Steps to be made one after the other: h -> a h + b. */
interface Steps {
  a: Numbers;
  b: Numbers;
}

/** Token by token. */
export function recurrentScan(call: ScanCall): LinearScanOutput {
  return scanned(call, ({ a, b }, start) => {
    const [factors, added] = [a, b].map((x) => x.map(unstack));
    let h = start;
    const rows = added[0].map((_, t) => {
      const at = (x: tf.Tensor[][]) => x.map((part) => part[t]);
      h = plus(times(at(factors), h), at(added));
      return h;
    });
    return h.map((_, part) =>
      tf.concat(
        rows.map((row) => row[part]),
        1,
      ),
    );
  });
}

/** Over all tokens at once, log2(T) times. */
export function treeScan(call: ScanCall): LinearScanOutput {
  return scanned(call, (steps, start) => withStart(inclusive(steps), start));
}

/** The steps within all chunks side by side, then a scan over the chunks. */
export function chunkScan(call: ScanCall, chunkSize: number): LinearScanOutput {
  return scanned(call, (steps, start) => {
    const [B, T, D] = steps.b[0].shape;
    const C = Math.min(chunkSize, T);
    const N = Math.ceil(T / C);
    const chunks = (x: Numbers, value: number) =>
      x.map((part, i) => pad(part, 1, [0, N * C - T], i === 0 ? value : 0).reshape([B * N, C, D]));
    const within = stepwise({ a: chunks(steps.a, 1), b: chunks(steps.b, 0) });
    const last = (x: Numbers) => x.map((part) => tf.slice(part, [0, C - 1, 0], [B * N, 1, D]).reshape([B, N, D]));
    const ends = withStart(inclusive({ a: last(within.a), b: last(within.b) }), start);
    const before = ends.map((end, i) => tf.concat([start[i], end], 1)); // and the state after the last chunk
    const entering = before.map((x) => cutEnd(x, 1, N).reshape([B * N, 1, D]));
    return plus(times(within.a, entering), within.b).map((x) => cutEnd(x.reshape([B, N * C, D]), 1, T));
  });
}

/** Directions, logarithms and pairs are dealt with here: a form makes h [B, T, D] of steps in the order they are made and a start [B, 1, D]. */
function scanned({ a, logs, b, initialState, reverse }: ScanCall, form: (steps: Steps, start: Numbers) => Numbers) {
  const [B, T] = b.shape;
  const ordered = (x: tf.Tensor) => (reverse ? tf.reverse(x, 1) : x);
  const factors = logs ? tf.exp(a) : a;
  const shared = a.rank < b.rank;
  const tokens = tf.ones(b.shape.map((n, i) => (i < 2 ? n : 1))); // not tf.tile: its gradient slices once for each token
  const all = shared ? tf.mul(tokens, factors) : ordered(factors);
  const isComplex = b.rank === 4;
  const parts = (x: tf.Tensor) => (isComplex ? split(x) : [x]);
  const start = initialState ?? tf.zeros([B, ...b.shape.slice(2)]);
  const h = joined(form({ a: parts(all), b: parts(ordered(b)) }, parts(tf.expandDims(start, 1))));
  const end = tf.slice(h, [0, T - 1, 0, 0].slice(0, h.rank), [B, 1, ...h.shape.slice(2)]);
  return { o: ordered(h), finalState: end.reshape([B, ...b.shape.slice(2)]) };
}

/** [..., D, 2] -> real and imaginary parts [..., D]. */
function split(x: tf.Tensor): Numbers {
  return tf.split(x, 2, x.rank - 1).map((part) => part.reshape(x.shape.slice(0, -1)));
}

function joined(x: Numbers): tf.Tensor {
  if (x.length === 1) return x[0];
  return tf.concat(
    x.map((part) => tf.expandDims(part, part.rank)),
    x[0].rank,
  );
}

function times(x: Numbers, y: Numbers): Numbers {
  if (x.length === 1) return [tf.mul(x[0], y[0])];
  return [tf.sub(tf.mul(x[0], y[0]), tf.mul(x[1], y[1])), tf.add(tf.mul(x[0], y[1]), tf.mul(x[1], y[0]))];
}

const plus = (x: Numbers, y: Numbers): Numbers => x.map((part, i) => tf.add(part, y[i]));

/** `first`, then `second`, as one step. */
const merged = (first: Steps, second: Steps): Steps => ({
  a: times(second.a, first.a),
  b: plus(times(second.a, first.b), second.b),
});

/** h after all the steps that lead to it, from a start. */
const withStart = ({ a, b }: Steps, start: Numbers): Numbers => plus(times(a, start), b);

/** Step t merged with all before it: with those 1, 2, 4, ... tokens back, in turn. */
function inclusive(steps: Steps): Steps {
  const [, T] = steps.b[0].shape;
  let all = steps;
  for (let d = 1; d < T; d *= 2) {
    const back = (x: Numbers, value: number) =>
      x.map((part, i) => pad(cutEnd(part, 1, T - d), 1, [d, 0], i === 0 ? value : 0));
    all = merged({ a: back(all.a, 1), b: back(all.b, 0) }, all);
  }
  return all;
}

/** The same, token by token. */
function stepwise(steps: Steps): Steps {
  const each = Object.fromEntries(Object.entries(steps).map(([name, x]) => [name, x.map(unstack)])) as Record<
    keyof Steps,
    tf.Tensor[][]
  >;
  const rows: Steps[] = [];
  for (let t = 0; t < (steps.b[0].shape[1] as number); t++) {
    const step = { a: each.a.map((part) => part[t]), b: each.b.map((part) => part[t]) };
    rows.push(t === 0 ? step : merged(rows[t - 1], step));
  }
  const along = (name: keyof Steps) =>
    steps[name].map((_, part) =>
      tf.concat(
        rows.map((row) => row[name][part]),
        1,
      ),
    );
  return { a: along('a'), b: along('b') };
}
