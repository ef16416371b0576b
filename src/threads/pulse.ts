/** Signs of life of a thread, in memory it shares with the main one: a message could not be sent from the middle of a computation. */
import * as tf from '@tensorflow/tfjs';

/** Counts beats. */
export type Pulse = Int32Array;

export const createPulse = (): Pulse => new Int32Array(new SharedArrayBuffer(4));

/** Beats at every kernel that TensorFlow.js runs in this thread from now on: its longest silence is that of one kernel. */
export function beatAtKernels(pulse: Pulse): void {
  const engine = tf.engine();
  const runKernel = engine.runKernel.bind(engine) as typeof engine.runKernel;
  engine.runKernel = ((...call: Parameters<typeof runKernel>) => {
    Atomics.add(pulse, 0, 1);
    return runKernel(...call);
  }) as typeof runKernel;
}

/** Beats while this thread waits for another one, whose own pulse tells whether it is worth waiting. */
export async function beatWhile<R>(pulse: Pulse, waiting: Promise<R>): Promise<R> {
  const timer = setInterval(() => Atomics.add(pulse, 0, 1), 100);
  try {
    return await waiting;
  } finally {
    clearInterval(timer);
  }
}

/** Parts of the limit. Silence is counted in them, so that one of a stopped process or a suspended machine is not taken for all of it. */
const TICKS = 10;

/**
 * Calls `onSilence` once when a pulse has not beaten for `seconds`, of which this thread has seen each tenth.
 * @returns ends the watch
 */
export function watchPulse(pulse: Pulse, seconds: number, onSilence: () => void): () => void {
  let [last, silent] = [Atomics.load(pulse, 0), 0];
  const timer = setInterval(
    () => {
      const now = Atomics.load(pulse, 0);
      silent = now === last ? silent + 1 : 0;
      last = now;
      if (silent < TICKS) return;
      clearInterval(timer);
      onSilence();
    },
    (1e3 * seconds) / TICKS,
  );
  return () => clearInterval(timer);
}
