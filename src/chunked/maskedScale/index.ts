/** The product of a sequence with one row of factors per batch entry: dropout whose mask is shared along time. */
import * as tf from '@tensorflow/tfjs';
import { checkDtype, checkShapes } from '../check.js';
import { isFused, type PlainForm } from '../form.js';
import { fusedOp } from '../wasm/fusedOp.js';
import type { WasmContext } from '../wasm/runtime.js';

export interface MaskedScaleOptions {
  form?: PlainForm;
}

/**
 * y[b,t,d] = x[b,t,d] * mask[b,d]. The mask is data: it has no gradient.
 * @param inputs x [B, T, D]; mask [B, D]; float32
 * @returns [B, T, D]
 * @throws RangeError for a mask of another shape
 */
export function maskedScale(
  { x, mask }: { x: tf.Tensor; mask: tf.Tensor },
  { form = 'auto' }: MaskedScaleOptions = {},
): tf.Tensor {
  checkDtype('maskedScale', { x, mask });
  checkShapes('maskedScale', { x: [x, [null, null, null]] });
  checkShapes('maskedScale', { mask: [mask, [x.shape[0], x.shape[2] as number]] });
  if (isFused('maskedScale', form)) return fused({ x, mask }, {})[0];
  return tf.tidy(() => plain(x, tf.expandDims(mask, 1)));
}

function plain(x: tf.Tensor, factors: tf.Tensor): tf.Tensor {
  const op = tf.customGrad((...args) => {
    const [input, save] = args as unknown as [tf.Tensor, tf.GradSaveFunc];
    save([factors]);
    const gradFunc = (dy: tf.Tensor, [saved]: tf.Tensor[]) => tf.mul(dy, saved);
    return { value: tf.mul(input, factors), gradFunc };
  });
  return op(x);
}

const fused = fusedOp<'x' | 'mask', object>({
  name: 'MaskedScale',
  inputs: ['x', 'mask'],
  forward: (ctx, { x, mask }) => [scaled(ctx, x, mask)],
  backward: { x: (ctx, [dy], { mask }) => scaled(ctx, dy, mask) },
});

function scaled(ctx: WasmContext, x: tf.TensorInfo, mask: tf.TensorInfo): tf.TensorInfo {
  const y = ctx.out(x.shape);
  ctx.kernels.maskedScale(ctx.ptr(x), ctx.ptr(mask), ctx.ptr(y), ...x.shape);
  return y;
}
