/**
 * A stand-in for webgpu where there is none: the cpu kernels under that name, data that cannot be read at the call, and a gather that
 * reads a wrong row, without an error, for an index out of range.
 */
import * as tf from '@tensorflow/tfjs';
import { vi } from 'vitest';

interface CpuBackend {
  data: { get(id: object): { values: ArrayLike<number> } };
  makeTensorInfo(shape: number[], dtype: string, values: ArrayLike<number>): tf.TensorInfo;
  disposeData(id: object): void;
}

/** Runs `body` on it and goes back to wasm. */
export async function onAsyncBackend(body: () => Promise<void>): Promise<void> {
  await tf.setBackend('cpu');
  const Cpu = tf.backend().constructor as new () => ReturnType<typeof tf.backend>;
  tf.registerBackend('webgpu', () => new Cpu());
  tf.copyRegisteredKernels('cpu', 'webgpu');
  const gather = tf.getKernel('GatherV2', 'webgpu');
  tf.unregisterKernel('GatherV2', 'webgpu');
  tf.registerKernel({ ...gather, kernelFunc: clamped(gather.kernelFunc) });
  await tf.setBackend('webgpu');
  const dataSync = vi.spyOn(tf.Tensor.prototype, 'dataSync').mockImplementation(() => {
    throw new Error('this backend reads data asynchronously only');
  });
  try {
    await body();
  } finally {
    dataSync.mockRestore();
    await tf.setBackend('wasm');
    tf.removeBackend('webgpu');
    for (const { kernelName } of tf.getKernelsForBackend('webgpu')) tf.unregisterKernel(kernelName, 'webgpu');
  }
}

const clamped =
  (gather: tf.KernelFunc): tf.KernelFunc =>
  (args) => {
    const { x, indices } = args.inputs as Record<'x' | 'indices', tf.TensorInfo>;
    const backend = args.backend as CpuBackend;
    const last = x.shape[0] - 1;
    const inside = Int32Array.from(backend.data.get(indices.dataId).values, (i) => Math.min(Math.max(i, 0), last));
    const info = backend.makeTensorInfo(indices.shape, 'int32', inside);
    const y = gather({ ...args, inputs: { x, indices: info } });
    backend.disposeData(info.dataId);
    return y;
  };
