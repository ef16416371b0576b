import * as tf from '@tensorflow/tfjs';
import { WasmContext } from '../../chunked/wasm/runtime.js';
import { type Fix, replaceKernel, stockKernel } from './replaceKernel.js';

/** y[ids[r]] += x[r]; rows whose id is outside [0, numSegments) are dropped, as on the other backends. */
export const unsortedSegmentSum: Fix = {
  name: 'unsortedSegmentSum on wasm',
  defect: 'no kernel: the gradient of gather (an embedding) throws',
  backend: 'wasm',
  install: () => replaceKernel(tf.UnsortedSegmentSum, 'wasm', () => segmentSum),
  installed: () => stockKernel(tf.UnsortedSegmentSum, 'wasm') !== undefined,
};

const segmentSum: tf.KernelFunc = ({ inputs, backend, attrs }) => {
  const ctx = WasmContext.of(backend);
  const { x, segmentIds } = inputs as Record<'x' | 'segmentIds', tf.TensorInfo>;
  const { numSegments } = attrs as unknown as tf.UnsortedSegmentSumAttrs;
  const [rows] = x.shape;
  if (segmentIds.shape.length !== 1 || segmentIds.shape[0] !== rows)
    throw new RangeError(`unsortedSegmentSum: segmentIds must have shape [${rows}], got [${segmentIds.shape}]`);
  if (x.dtype !== 'float32' && x.dtype !== 'int32')
    throw new TypeError(`unsortedSegmentSum: x must be float32 or int32, got ${x.dtype}`);
  const y = ctx.out([numSegments, ...x.shape.slice(1)], x.dtype);
  const width = tf.util.sizeFromShape(x.shape.slice(1));
  ctx.kernels.fixSegmentSum(
    ctx.ptr(x),
    ctx.ptr(segmentIds),
    ctx.ptr(y),
    rows,
    width,
    numSegments,
    +(x.dtype === 'float32'),
  );
  return y;
};
