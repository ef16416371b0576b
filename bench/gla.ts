/** Gated linear attention: the fused kernel against softmax attention, the plain ops and PyTorch, its growth, its share of the limit. */
import * as tf from '@tensorflow/tfjs';
import { gla as op } from '../src/chunked/index.js';
import {
  type Context,
  compare,
  facts,
  inProcess,
  type Params,
  type Pass,
  type Suite,
  type Task,
  takeTurns,
} from './harness.js';
import { peakMeter } from './peak/index.js';
import { inPython } from './python.js';
import { growthExponent } from './statistics.js';

const SIZES = { B: 1, H: 4, K: 64, V: 64 };
const NAME = 'B=1 H=4 K=64 V=64';
/** The exponent of growth is taken from these lengths, in this many times the usual repetitions. */
const GROWTH = { lengths: [1024, 2048, 4096, 8192], turns: 4 };

export const gla: Suite = {
  name: 'gla',
  tests: ['test/chunked/gla.'],
  tasks: {
    gla: attention('ours', ({ q, k, v, g }) => op({ q, k, v, g }).o),
    'stock-gla': attention('stock', ({ q, k, v, g }) => op({ q, k, v, g }, { form: 'chunk' }).o),
    'stock-softmax': softmaxAttention(),
  },
  async run(context) {
    const peak = await peakMeter();
    const points: Point[] = [];
    let limit = 0; // the best of the whole run: a limit is what is possible, and the machine's other work only lowers a reading
    for (const pass of context.passes) {
      for (const T of context.lengths ?? [512, 1024, 2048, 4096, 8192]) {
        const params = { T, pass };
        const peers = ['stock-gla', 'stock-softmax', inPython('pytorch-cpu', 'gla.py', { ...SIZES, ...params })];
        limit = Math.max(limit, peak());
        points.push({ ...params, ...(await compare(context, { name: NAME, ours: 'gla', peers, params })) });
      }
      await emitGrowth(context, pass);
    }
    emitShares(context, points, Math.max(limit, peak()));
  },
};

/** Timings of ours at one length. */
interface Point extends Params {
  median: number;
  fastest: number;
}

type Inputs = Record<'q' | 'k' | 'v' | 'g', tf.Tensor>;

/** Times `run`, or its gradients in all `used` inputs under an upstream that is given, so that no loss is timed with it. */
function attention(
  setup: Task['setup'],
  run: (inputs: Inputs) => tf.Tensor,
  used: (keyof Inputs)[] = ['q', 'k', 'v', 'g'],
): Task {
  return {
    setup,
    prepare({ T, pass }) {
      const { B, H, K, V } = SIZES;
      const draw = (D: number, seed: number) => tf.randomNormal([B, T, H, D], 0, 1, 'float32', seed);
      const g = tf.tidy(() => tf.mul(-0.05, tf.abs(draw(K, 4))));
      const inputs: Inputs = { q: draw(K, 1), k: draw(K, 2), v: draw(V, 3), g };
      if (pass === 'fwd') return () => tf.tidy(() => void run(inputs));
      const upstream = draw(V, 5);
      const gradients = tf.grads((...xs) =>
        run({ ...inputs, ...Object.fromEntries(used.map((name, i) => [name, xs[i]])) }),
      );
      const differentiated = used.map((name) => inputs[name]);
      return () => tf.tidy(() => void gradients(differentiated, upstream));
    },
  };
}

/** Causal softmax attention in its ordinary form: all scores, a mask added to them, softmax over every row. */
function softmaxAttention(): Task {
  let mask: tf.Tensor | undefined; // [T, T]: 0 up to the diagonal, -1e9 after it
  const run = ({ q, k, v }: Inputs) => {
    const [Q, keys, values] = [q, k, v].map((x) => tf.transpose(x, [0, 2, 1, 3])); // [B, H, T, *]
    const scores = tf.mul(tf.matMul(Q, keys, false, true), SIZES.K ** -0.5);
    const weights = tf.softmax(tf.add(scores, mask as tf.Tensor));
    return tf.transpose(tf.matMul(weights, values), [0, 2, 1, 3]);
  };
  const task = attention('stock', run, ['q', 'k', 'v']);
  return {
    ...task,
    prepare(params) {
      mask = tf.tidy(() => {
        const position = tf.range(0, params.T);
        return tf.mul(-1e9, tf.cast(tf.greater(position.reshape([1, -1]), position.reshape([-1, 1])), 'float32'));
      });
      return task.prepare(params);
    },
    refusal: refuseSoftmax,
  };
}

/** Tensors of the size of the scores that softmax attention holds at its peak, and what the backend's memory can hold. */
const SCORES_HELD: Record<Pass, number> = { fwd: 4, fwdbwd: 8 };
const MEMORY_LIMIT = 2 ** 32;

function refuseSoftmax({ T, pass }: Params): string | undefined {
  const bytes = SCORES_HELD[pass] * SIZES.B * SIZES.H * T * T * 4;
  if (bytes < MEMORY_LIMIT) return undefined;
  return `its scores need ${(bytes / 2 ** 30).toFixed(1)} GiB at T=${T}, the wasm memory ends at 4 GiB`;
}

/**
 * ms = c * T^exponent. All lengths take turns, so that they meet the same weather, and the fastest repetitions count: what other work on
 * the machine adds is not the kernel's.
 */
async function emitGrowth(context: Context, pass: Pass): Promise<void> {
  const lengths = (context.lengths ?? GROWTH.lengths).filter((T) => GROWTH.lengths.includes(T));
  if (lengths.length < 2) return;
  const contestants = lengths.map((T) => ({ ...inProcess(context.suite, 'gla', { T, pass }), name: String(T) }));
  try {
    const results = await takeTurns(contestants, GROWTH.turns * context.reps);
    const points = [...results].map(([T, { samples }]) => ({ T: Number(T), ms: Math.min(...samples) }));
    const fastestMs = points.map(({ ms }) => ms);
    context.emit({ ...facts('gla', 'growth exponent'), pass, exponent: growthExponent(points), lengths, fastestMs });
  } finally {
    for (const contestant of contestants) contestant.close();
  }
}

/** What share of the machine's limit (GFLOP/s) the recurrence's own multiply-adds reach. */
function emitShares(context: Context, points: Point[], limit: number): void {
  for (const { T, pass, median, fastest } of points) {
    const gflops = usefulFlop({ T, pass }) / fastest / 1e6;
    const row = { ...facts('gla', 'share of the wasm limit'), pass, T, ms: median, fastestMs: fastest };
    context.emit({ ...row, gflops, limitGflops: limit, share: gflops / limit });
  }
}

/**
 * What the recurrence itself costs: 2 K V to write and 2 K V to read a state, forward; twice that for the four gradients, backward.
 * Scores inside chunks and states computed again are the price of the method and do not count as useful.
 */
function usefulFlop({ T, pass }: Params): number {
  const { B, H, K, V } = SIZES;
  return B * T * H * K * V * (pass === 'fwd' ? 4 : 12);
}
