/** What the suites of mixing ops share: sizes, tasks, the growth with length, the share of the machine's limit. */
import * as tf from '@tensorflow/tfjs';
import {
  type Contestant,
  type Context,
  compare,
  facts,
  inProcess,
  type Params,
  type Task,
  takeTurns,
} from './harness.js';
import { peakMeter } from './peak/index.js';
import { growthExponent } from './statistics.js';

export const SIZES = { B: 1, H: 4, K: 64, V: 64 };
export const SIZES_NAME = 'B=1 H=4 K=64 V=64';
const LENGTHS = [512, 1024, 2048, 4096, 8192];
/** The exponent of growth is taken from these lengths, in this many times the usual repetitions. */
const GROWTH = { lengths: [1024, 2048, 4096, 8192], turns: 4 };

export type Inputs = Record<string, tf.Tensor>;

/** Standard normal numbers [B, T, H, width], or [B, T, H] without a width. */
export function drawTokens(T: number, width: number | undefined, seed: number): tf.Tensor {
  const { B, H } = SIZES;
  return tf.randomNormal(width === undefined ? [B, T, H] : [B, T, H, width], 0, 1, 'float32', seed);
}

/** Rows of the last of four axes, of length 1. */
export const unitRows = (x: tf.Tensor) => tf.div(x, tf.norm(x, 'euclidean', 3, true));

/** Times `run`, or its gradients in all `used` inputs under an upstream that is given, so that no loss is timed with it. */
export function mixingTask<Names extends string>(
  setup: Task['setup'],
  draw: (T: number) => Record<Names, tf.Tensor>,
  run: (inputs: Record<Names, tf.Tensor>) => tf.Tensor,
  used?: readonly Names[],
): Task {
  return {
    setup,
    prepare({ T, pass }) {
      const inputs = draw(T);
      if (pass === 'fwd') return () => tf.tidy(() => void run(inputs));
      const upstream = drawTokens(T, SIZES.V, 5);
      const names = used ?? (Object.keys(inputs) as Names[]);
      const gradients = tf.grads((...xs) =>
        run({ ...inputs, ...Object.fromEntries(names.map((name, i) => [name, xs[i]])) }),
      );
      const differentiated = names.map((name) => inputs[name]);
      return () => tf.tidy(() => void gradients(differentiated, upstream));
    },
  };
}

/** An op to measure: its task, its peers, and what its recurrence costs. */
export interface Measured {
  /** Name of its task in the suite. */
  ours: string;
  /** What rows call it. */
  name: string;
  peers(params: Params): (string | Contestant)[];
  /** False: its time is not compared over lengths, as that of a kernel which another op shows. */
  growth?: false;
  /**
   * Multiplications and additions for each cell of the state and token of the recurrence itself, forward; backward counts twice. Absent where
   * the kernel's method needs fewer: no share of the limit is given then.
   */
  flopPerCell?: number;
}

/**
 * Rows of all ops at all lengths: against their peers, then growth, then shares of the limit. `turns`: of all lengths for each repetition, when
 * growth is measured.
 */
export async function measureMixing(
  context: Context,
  ops: Measured[],
  { turns = GROWTH.turns }: { turns?: number } = {},
): Promise<void> {
  const peak = await peakMeter();
  const points: Point[] = [];
  let limit = 0; // the best of the whole run: a limit is what is possible, and the machine's other work only lowers a reading
  for (const op of ops) {
    for (const pass of context.passes) {
      for (const T of context.lengths ?? LENGTHS) {
        const params = { T, pass };
        limit = Math.max(limit, peak());
        points.push({ ...params, op, ...(await compare(context, { ...op, peers: op.peers(params), params })) });
      }
      if (op.growth !== false) await emitGrowth(context, op.ours, { pass }, undefined, turns);
    }
  }
  emitShares(context, points, Math.max(limit, peak()));
}

/** Timings of an op at one length. */
interface Point extends Params {
  op: Measured;
  median: number;
  fastest: number;
}

/**
 * ms = c * T^exponent. All lengths take turns, so that they meet the same weather, and the fastest repetitions count: what other work on
 * the machine adds is not the kernel's.
 */
export async function emitGrowth(
  context: Context,
  ours: string,
  params: Omit<Params, 'T'>,
  lengths = (context.lengths ?? GROWTH.lengths).filter((T) => GROWTH.lengths.includes(T)),
  turns = GROWTH.turns,
): Promise<void> {
  if (lengths.length < 2) return;
  const contestants = lengths.map((T) => ({ ...inProcess(context.suite, ours, { ...params, T }), name: String(T) }));
  try {
    const results = await takeTurns(contestants, turns * context.reps);
    const points = [...results].map(([T, { samples }]) => ({ T: Number(T), ms: Math.min(...samples) }));
    const fastestMs = points.map(({ ms }) => ms);
    const row = facts(context.suite.name, `${ours}: growth exponent`);
    context.emit({ ...row, pass: params.pass, exponent: growthExponent(points), lengths, fastestMs });
  } finally {
    for (const contestant of contestants) contestant.close();
  }
}

/** What share of the machine's limit (GFLOP/s) the recurrence's own multiply-adds reach. */
function emitShares(context: Context, points: Point[], limit: number): void {
  for (const { op, T, pass, median, fastest } of points) {
    if (op.flopPerCell === undefined) continue;
    const gflops = usefulFlop(op.flopPerCell, { T, pass }) / fastest / 1e6;
    const row = {
      ...facts(context.suite.name, `${op.ours}: share of the wasm limit`),
      pass,
      T,
      ms: median,
      fastestMs: fastest,
    };
    context.emit({ ...row, gflops, limitGflops: limit, share: gflops / limit });
  }
}

/** Scores inside chunks and states computed again are the price of the method and do not count as useful. */
function usefulFlop(flopPerCell: number, { T, pass }: Params): number {
  const { B, H, K, V } = SIZES;
  return B * T * H * K * V * flopPerCell * (pass === 'fwd' ? 1 : 3);
}
