/** BitLinear from a packed weight, for inference: two bits a weight in memory, sums of int8 in integers. */
import * as tf from '@tensorflow/tfjs';
import { type PackedMatrix, packedRowBytes, packTernary, repackTernary, unpackTernary } from '../../formats/ternary.js';
import { checkDtype, checkGiven, checkShapes } from '../check.js';
import { isFused, type PlainForm } from '../form.js';
import { checkEps } from '../rmsNorm/rootNorm.js';
import { lastAxis } from '../rows.js';
import { fusedPackedBitLinear } from './fused.js';
import { quantiseActivations, quantiseWeight } from './quantise.js';

/** A ternary weight: `data` int32 [O, n], rows of two-bit codes filled up to 64 weights; `scale` [], what W was multiplied by. */
export interface PackedWeight {
  data: tf.Tensor;
  scale: tf.Tensor;
  /** [O, I] */
  shape: [number, number];
}

/** 64 weights: what the kernel reads at once. */
const packing = { encoding: '2bit', align: 16 } as const;

/** The weight [O, I] rounded as `bitLinear` rounds it, 16 weights to an int32. The caller owns `data` and `scale`. */
export function packWeight(weight: tf.Tensor): PackedWeight {
  const { values, scale } = quantiseWeight(weight);
  const shape = weight.shape as [number, number];
  const bytes = packTernary(values.dataSync(), shape, packing);
  values.dispose();
  return { data: wordsOf(bytes, shape), scale, shape };
}

/** A matrix that was packed before, of either encoding. The caller owns `data` and `scale`. */
export function packedWeight(matrix: PackedMatrix): PackedWeight {
  const { shape, bytes, scale } = repackTernary(matrix, packing);
  return { data: wordsOf(bytes, shape), scale: tf.scalar(scale, 'float32'), shape };
}

/** A copy of a packed weight outside of TensorFlow.js. */
export async function packedMatrix({ data, scale, shape }: PackedWeight): Promise<PackedMatrix> {
  const [words, [factor]] = [(await data.data()) as Int32Array, await scale.data()];
  return { shape, bytes: new Uint8Array(words.slice().buffer), packing, scale: factor };
}

const wordsOf = (given: Uint8Array, [rows, columns]: [number, number]) => {
  const bytes = given.byteOffset % 4 ? given.slice() : given; // a file may hold it at any byte
  const words = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  return tf.tensor2d(words, [rows, packedRowBytes(columns, packing) / 4], 'int32');
};

/** The ternary weight as floats -1, 0 and 1, [O, I]. */
export function unpackWeight({ data, shape }: PackedWeight): tf.Tensor {
  const words = data.dataSync() as Int32Array;
  const bytes = new Uint8Array(words.buffer, words.byteOffset, words.byteLength);
  return tf.tensor2d(Float32Array.from(unpackTernary(bytes, shape, packing)), shape);
}

/**
 * `bitLinear` with the weight that was packed: the same to the last bit on wasm, where the weight is read as it lies. No gradient.
 * @param inputs x [..., I], norm [I] (ones if absent), float32; weight from `packWeight`
 * @returns [..., O]
 * @throws RangeError for shapes that do not fit, Error where a gradient is recorded
 */
export function packedBitLinear(
  { x, weight, norm }: { x: tf.Tensor; weight: PackedWeight; norm?: tf.Tensor },
  { eps = 1e-6, form = 'auto' }: { eps?: number; form?: PlainForm } = {},
): tf.Tensor {
  const [O, I] = weight.shape;
  checkGiven('packedBitLinear', { x });
  checkDtype('packedBitLinear', { x, norm });
  checkShapes('packedBitLinear', {
    norm: [norm, [I]],
    'weight.data': [weight.data, [O, packedRowBytes(I, packing) / 4]],
  });
  if (lastAxis('packedBitLinear', x) !== I)
    throw new RangeError(`packedBitLinear: x must have shape [...,${I}], got [${x.shape}]`);
  checkEps('packedBitLinear', eps);
  if (tf.engine().isTapeOn())
    throw new Error('packedBitLinear: packed weights have no gradient; train the model they were packed from');
  if (isFused('packedBitLinear', form))
    return fusedPackedBitLinear({ x, norm, data: weight.data, scale: weight.scale }, eps);
  return tf.tidy(() => {
    const { values, scale } = quantiseActivations({ x, norm }, { eps, form });
    const sums = tf.matMul(tf.reshape(values, [-1, I]), unpackWeight(weight) as tf.Tensor2D, false, true);
    const out = tf.div(sums, tf.mul(tf.reshape(scale, [-1, 1]), weight.scale));
    return tf.reshape(out, [...x.shape.slice(0, -1), O]);
  });
}
