/** Choose and prepare the TensorFlow.js backend. */
import * as tf from '@tensorflow/tfjs';
import '@tensorflow/tfjs-backend-wasm';
import { checkOneOf } from '../chunked/check.js';
import { installedBuild, installedNative, installKernels } from '../chunked/wasm/runtime.js';
import { installFixes } from './fixes/index.js';
import { BACKENDS, type BackendName } from './names.js';
import { chooseNative, type NativeOption } from './native.js';
import { chooseBuild, type RelaxedSimd } from './relaxedSimd.js';
import { loadTensorflow } from './tensorflow.js';
import { loadWebgpu } from './webgpu.js';

export { BACKENDS, type BackendName };

export interface BackendOptions {
  /**
   * Fused multiply-add in our wasm kernels. `auto`: where the engine has it and computes rightly (on Node 20 this sets the V8 flag);
   * `on`: throw where it cannot be had; `off`: never. Default: environment variable SEQMIX_RELAXED_SIMD, else `auto`.
   */
  relaxedSimd?: RelaxedSimd;
  /**
   * Matrix products on wasm by the system's BLAS, where the native addon is built (Node only). `auto`: where it is there and computes
   * rightly; `on`: throw where it cannot be had; `off`: never. Default: environment variable SEQMIX_NATIVE, else `auto`.
   */
  native?: NativeOption;
  /** Threads for a native product, in the whole process; default 1. */
  nativeThreads?: number;
}

let last: Promise<void> = Promise.resolve();

/**
 * Makes a backend the active one: loads what it needs, installs our kernels (wasm) and the fixes for TensorFlow.js defects.
 * May be called again, also to switch, and concurrently: calls run one after the other, so the last one wins.
 * @param name `wasm` (default), `webgpu`, `tensorflow` or `cpu`
 * @throws Error naming the remedy when that backend cannot be had; the active backend is then what it was. Never falls back.
 */
export function useBackend(name: BackendName = 'wasm', options: BackendOptions = {}): Promise<void> {
  const result = last.then(() => activate(name, options));
  last = result.catch(() => undefined);
  return result;
}

async function activate(name: BackendName, { relaxedSimd, native, nativeThreads }: BackendOptions): Promise<void> {
  checkOneOf('useBackend', 'name', name, BACKENDS);
  const build = chooseBuild(name === 'wasm' ? relaxedSimd : 'off');
  const addon = name === 'wasm' ? chooseNative(native, nativeThreads) : undefined;
  const before = tf.engine().backendName; // not tf.getBackend(), which would start one
  try {
    if (name === 'webgpu') await loadWebgpu();
    if (name === 'tensorflow') await loadTensorflow();
    if (name === 'wasm') useUnsharedMemory();
    await setBackend(name);
    if (name === 'cpu') silenceBanner();
    if (name === 'wasm') await installKernels(build, addon);
  } catch (error) {
    if (before) await tf.setBackend(before); // a failed start, or the import of a native package, may have changed it
    throw error;
  }
  installFixes(name);
}

/** What on the active backend decides the last bits, as `on` or `off`: nothing but on wasm. */
export function arithmeticInUse(): Pick<BackendOptions, 'relaxedSimd' | 'native'> {
  if (tf.getBackend() !== 'wasm') return {};
  return { relaxedSimd: installedBuild() === 'relaxed' ? 'on' : 'off', native: installedNative() ? 'on' : 'off' };
}

/** In a page that may use threads the backend would take memory that they share, and a kernel can import only one kind: ours is the other. */
function useUnsharedMemory(): void {
  if (!tf.findBackend('wasm')) tf.env().set('WASM_HAS_MULTITHREAD_SUPPORT', false);
}

/** `tf.setBackend` logs and carries on with another backend when one does not start; this throws. */
async function setBackend(name: BackendName): Promise<void> {
  const started = await tf.setBackend(name).catch((error: Error) => error);
  if (started === true && tf.getBackend() === name) return;
  const reason = started instanceof Error ? `: ${started.message}` : '';
  throw new Error(`useBackend: the ${name} backend did not start${reason}; ${REMEDIES[name]}`);
}

const REMEDIES: Record<BackendName, string> = {
  wasm: "in a bundled page, say where its .wasm files lie with setWasmPaths() of '@tensorflow/tfjs-backend-wasm' before this call",
  webgpu: "no GPU adapter answered; update the GPU driver, or use useBackend('wasm')",
  tensorflow: "its native library did not load; reinstall '@tensorflow/tfjs-node', or use useBackend('wasm')",
  cpu: "import '@tensorflow/tfjs', which registers it",
};

/** The cpu backend advertises tfjs-node at its first write in Node; whoever asks for cpu has chosen. */
function silenceBanner(): void {
  (tf.backend() as { firstUse?: boolean }).firstUse = false;
}
