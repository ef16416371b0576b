/** The largest number of bytes that the wasm backend holds at once: tensors and scratch memory alike come from its allocator. */
import * as tf from '@tensorflow/tfjs';

interface Allocator {
  _malloc(bytes: number): number;
  _free(at: number): void;
}

/** What `f` allocates at most at one time, beyond what was there before. */
export function peakBytes(f: () => void): number {
  const { wasm } = tf.backend() as unknown as { wasm: Allocator };
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
  try {
    f();
  } finally {
    wasm._malloc = _malloc;
    wasm._free = _free;
  }
  return most;
}
