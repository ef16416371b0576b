/** The largest number of bytes that the wasm backend holds at once: tensors and scratch memory alike come from its allocator. */
import * as tf from '@tensorflow/tfjs';

interface Allocator {
  _malloc(bytes: number): number;
  _free(at: number): void;
}

export interface ByteMeter {
  /** The most bytes held at one time since the meter started, or started again; what was there before it is not counted. */
  peak(): number;
  /** From here on the peak is a new one; what is held goes on counting. */
  restart(): void;
  stop(): void;
}

/** Counts what the wasm backend allocates from now on. */
export function meterBytes(): ByteMeter {
  const { wasm } = tf.backend() as unknown as { wasm: Allocator };
  wasm._free(wasm._malloc(1)); // Emscripten's stubs put the functions themselves in their own place when they are called first
  const { _malloc, _free } = wasm;
  const sizes = new Map<number, number>();
  let [now, most] = [0, 0];
  wasm._malloc = (bytes) => {
    const at = _malloc(bytes);
    sizes.set(at, bytes);
    now += bytes;
    most = Math.max(most, now);
    return at;
  };
  wasm._free = (at) => {
    now -= sizes.get(at) ?? 0;
    sizes.delete(at);
    _free(at);
  };
  return {
    peak: () => most,
    restart: () => {
      most = now;
    },
    stop: () => {
      wasm._malloc = _malloc;
      wasm._free = _free;
    },
  };
}

/** What `f` allocates at most at one time, beyond what was there before. */
export function peakBytes(f: () => void): number {
  const meter = meterBytes();
  try {
    f();
    return meter.peak();
  } finally {
    meter.stop();
  }
}
