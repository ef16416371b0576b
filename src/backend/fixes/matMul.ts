import * as tf from '@tensorflow/tfjs';
import { multiply, multiplyAll } from '../../chunked/product/index.js';
import { WasmContext } from '../../chunked/wasm/runtime.js';
import { type Fix, replaceKernel, stockKernel } from './replaceKernel.js';

/**
 * The stock kernel keeps a packed copy of an untransposed b, so it multiplies by what b held at its first call: weights that an optimizer
 * changes in place would never train. For four rows and fewer that copy makes it some 10% faster than ours; all else is slower.
 */
export const matMul: Fix = {
  name: 'matMul and fused.matMul on wasm',
  defect:
    'b as it was at the first call when it changes in place; batches that broadcast both ways are wrong; transposed products are scalar loops, 20 times slower than need be',
  backend: 'wasm',
  install() {
    replaceKernel(tf.BatchMatMul, 'wasm', () => batchMatMul);
    replaceKernel(tf._FusedMatMul, 'wasm', () => fusedMatMul);
  },
  installed: () => [tf.BatchMatMul, tf._FusedMatMul].every((name) => stockKernel(name, 'wasm') !== undefined),
};

const batchMatMul: tf.KernelFunc = ({ inputs, backend, attrs }) => {
  const { a, b } = inputs as Record<'a' | 'b', tf.TensorInfo>;
  return product('matMul', WasmContext.of(backend), a, b, attrs as unknown as tf.BatchMatMulAttrs);
};

/** A bias of one row goes into the product; any other, and the activation, through the kernels of tf.add, tf.relu and so on. */
const fusedMatMul: tf.KernelFunc = ({ inputs, backend, attrs }) => {
  const { a, b, bias, preluActivationWeights } = inputs as Record<string, tf.TensorInfo>;
  const { transposeA, transposeB, activation, leakyreluAlpha } = attrs as unknown as tf._FusedMatMulAttrs;
  const ctx = WasmContext.of(backend);
  const isRow = bias?.shape.length === 1 && bias.shape[0] === sizes(b, transposeB)[1];
  let y = product('fused.matMul', ctx, a, b, { transposeA, transposeB }, isRow ? bias : undefined);
  const pipe = (kernel: string, given: tf.NamedTensorInfoMap, options: object = {}) => {
    const kernelFunc = tf.getKernel(kernel, 'wasm')?.kernelFunc;
    if (!kernelFunc) throw new Error(`fused.matMul: the wasm backend has no kernel ${kernel}`);
    const next = kernelFunc({ inputs: given, backend, attrs: options as tf.NamedAttrMap }) as tf.TensorInfo;
    ctx.backend.disposeData(y.dataId);
    y = next;
  };
  if (bias && !isRow) pipe(tf.Add, { a: y, b: bias });
  if (activation === 'prelu') pipe(tf.Prelu, { x: y, alpha: preluActivationWeights });
  else if (activation === 'leakyrelu') pipe(tf.LeakyRelu, { x: y }, { alpha: leakyreluAlpha });
  else if (activation && activation !== 'linear') pipe(ACTIVATIONS[activation], { x: y });
  return y;
};

const ACTIVATIONS = { relu: tf.Relu, relu6: tf.Relu6, elu: tf.Elu, sigmoid: tf.Sigmoid };

function product(
  op: string,
  ctx: WasmContext,
  a: tf.TensorInfo,
  b: tf.TensorInfo,
  { transposeA, transposeB }: tf.BatchMatMulAttrs,
  bias?: tf.TensorInfo,
): tf.TensorInfo {
  checkFactors(op, a, b, transposeA, transposeB);
  const [[M, K], [, N]] = [sizes(a, transposeA), sizes(b, transposeB)];
  const [aBatch, bBatch] = [a.shape.slice(0, -2), b.shape.slice(0, -2)];
  const batch = tf.backend_util.assertAndGetBroadcastShape(aBatch, bBatch);
  const c = ctx.out([...batch, M, N]);
  const count = tf.util.sizeFromShape(batch);
  if (count * M * N === 0) return c;
  const call = { K, N, transposeA, transposeB };
  const [aPtr, bPtr, cPtr, biasPtr] = [ctx.ptr(a), ctx.ptr(b), ctx.ptr(c), bias ? ctx.ptr(bias) : 0];
  if (!transposeA && tf.util.sizeFromShape(bBatch) === 1) {
    multiply(ctx, aPtr, bPtr, biasPtr, cPtr, { M: count * M, ...call }); // all rows of the batch against one matrix
    return c;
  }
  const [aAt, bAt] = [matrixNumbers(aBatch, batch), matrixNumbers(bBatch, batch)];
  const matrices = Array.from({ length: count }, (_, i): [number, number, number] => [
    aPtr + 4 * M * K * aAt[i],
    bPtr + 4 * K * N * bAt[i],
    cPtr + 4 * M * N * i,
  ]);
  multiplyAll(ctx, matrices, biasPtr, { M, ...call });
  return c;
}

/** [rows, columns] of the matrices of a tensor, after the transpose. */
function sizes({ shape }: tf.TensorInfo, transpose: boolean): [number, number] {
  const [rows, columns] = shape.slice(-2);
  return transpose ? [columns, rows] : [rows, columns];
}

function checkFactors(op: string, a: tf.TensorInfo, b: tf.TensorInfo, transposeA: boolean, transposeB: boolean): void {
  for (const [name, { dtype, shape }] of Object.entries({ a, b })) {
    if (dtype !== 'float32')
      throw new TypeError(`${op}: ${name} must be float32 on wasm, got ${dtype}; use tf.cast(${name}, 'float32')`);
    if (shape.length < 2) throw new RangeError(`${op}: ${name} must have at least two axes, got [${shape}]`);
  }
  if (sizes(a, transposeA)[1] !== sizes(b, transposeB)[0])
    throw new RangeError(
      `${op}: the inner sizes must be equal, got a [${a.shape}] with transposeA=${transposeA} and b [${b.shape}] with transposeB=${transposeB}`,
    );
}

/** For each matrix of the broadcast batch, which matrix of the given batch it comes from. */
function matrixNumbers(given: number[], batch: number[]): number[] {
  const padded = [...Array<number>(batch.length - given.length).fill(1), ...given];
  return batch.reduce(
    (numbers, size, axis) =>
      numbers.flatMap((n) => Array.from({ length: size }, (_, i) => n * padded[axis] + (padded[axis] === 1 ? 0 : i))),
    [0],
  );
}
