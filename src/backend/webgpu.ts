/** The WebGPU backend: built into browsers; in Node through the optional package `webgpu` (Dawn). */
import * as tf from '@tensorflow/tfjs';
import { importOptional, isNode } from './optional.js';

const BACKEND = '@tensorflow/tfjs-backend-webgpu';

interface Dawn {
  create(flags: string[]): unknown;
  globals: object;
}

/**
 * Sees to it that the backend is registered and an adapter answers.
 * @throws Error naming the remedy when a package or the adapter is missing
 */
export async function loadWebgpu(): Promise<void> {
  if (isNode()) await provideGpu();
  const gpu = (globalThis.navigator as { gpu?: GpuLike } | undefined)?.gpu;
  if (!gpu) throw new Error("useBackend: this browser has no WebGPU; use a newer one, or useBackend('wasm')");
  // The backend would only warn and leave the work to cpu.
  if (!(await gpu.requestAdapter()))
    throw new Error(
      "useBackend: WebGPU found no adapter; install a Vulkan, Metal or D3D12 driver (on Linux without a GPU, point VK_ICD_FILENAMES at a software one), or use useBackend('wasm')",
    );
  if (tf.findBackendFactory('webgpu')) return;
  await importOptional(
    BACKEND,
    `useBackend: the webgpu backend needs its package; npm install ${BACKEND}@${tf.version.tfjs}`,
  );
  if (!tf.findBackendFactory('webgpu'))
    throw new Error(
      `useBackend: '${BACKEND}' was imported before WebGPU was there, or with another copy of TensorFlow.js; import it after useBackend('webgpu'), and keep one copy of '@tensorflow/tfjs-core'`,
    );
}

interface GpuLike {
  requestAdapter(): Promise<unknown>;
}

/** Node has no `navigator.gpu`: Dawn makes one. It must be there before the backend is imported. */
async function provideGpu(): Promise<void> {
  if ((globalThis.navigator as { gpu?: unknown } | undefined)?.gpu) return;
  const { create, globals } = await importOptional<Dawn>(
    'webgpu',
    'useBackend: WebGPU in Node needs the package webgpu; npm install webgpu',
  );
  Object.assign(globalThis, globals);
  if (!globalThis.navigator) Object.defineProperty(globalThis, 'navigator', { value: {}, configurable: true });
  Object.defineProperty(globalThis.navigator, 'gpu', { value: create([]), configurable: true });
}
