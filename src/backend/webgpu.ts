/** The WebGPU backend: built into browsers; in Node through the optional package `webgpu` (Dawn). */
import * as tf from '@tensorflow/tfjs';
import { importOptional, isNode } from './optional.js';

export const WEBGPU_PACKAGE = '@tensorflow/tfjs-backend-webgpu';

interface Gpu {
  requestAdapter(): Promise<{ info?: { vendor: string; architecture: string; description: string } } | null>;
}

interface Dawn {
  create(flags: string[]): Gpu;
  globals: object;
}

/**
 * Sees to it that the backend is registered and an adapter answers.
 * @throws Error naming the remedy when a package or the adapter is missing
 */
export async function loadWebgpu(): Promise<void> {
  await findAdapter(); // else the backend would only warn, and leave the work to cpu
  if (tf.findBackendFactory('webgpu')) return;
  await importOptional(
    WEBGPU_PACKAGE,
    `useBackend: the webgpu backend needs its package; npm install ${WEBGPU_PACKAGE}@${tf.version.tfjs}${isNode() ? '' : ', and import it in the page before this call'}`,
  );
  if (!tf.findBackendFactory('webgpu'))
    throw new Error(
      `useBackend: '${WEBGPU_PACKAGE}' was imported before WebGPU was there, or with another copy of TensorFlow.js; import it after useBackend('webgpu'), and keep one copy of '@tensorflow/tfjs-core'`,
    );
}

/** A description of the adapter. In Node this puts Dawn's `navigator.gpu` in place, and takes it away again on failure. */
export async function findAdapter(): Promise<string> {
  const provided = isNode() && (await provideGpu());
  const gpu = (globalThis.navigator as { gpu?: Gpu } | undefined)?.gpu;
  if (!gpu) throw new Error("useBackend: this browser has no WebGPU; use a newer one, or useBackend('wasm')");
  const adapter = await gpu.requestAdapter();
  if (adapter) return adapter.info?.description || adapter.info?.vendor || 'unnamed adapter';
  if (provided) Reflect.deleteProperty(globalThis.navigator, 'gpu');
  throw new Error(
    "useBackend: WebGPU found no adapter; install a Vulkan, Metal or D3D12 driver (on Linux without a GPU, point VK_ICD_FILENAMES at a software one), or use useBackend('wasm')",
  );
}

/** Node has no `navigator.gpu`: Dawn makes one. It must be there before the backend is imported. True when made here. */
async function provideGpu(): Promise<boolean> {
  if ((globalThis.navigator as { gpu?: Gpu } | undefined)?.gpu) return false;
  const { create, globals } = await importOptional<Dawn>(
    'webgpu',
    'useBackend: WebGPU in Node needs the package webgpu; npm install webgpu',
  );
  Object.assign(globalThis, globals);
  if (!globalThis.navigator) Object.defineProperty(globalThis, 'navigator', { value: {}, configurable: true });
  Object.defineProperty(globalThis.navigator, 'gpu', { value: create([]), configurable: true });
  return true;
}
