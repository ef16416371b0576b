/** The gate of MLGRU (Zhu et al. 2024, https://arxiv.org/abs/2406.02528, Sec. 3.3.1), with the lower bounds of HGRN (https://arxiv.org/abs/2311.04823). */
import * as tf from '@tensorflow/tfjs';
import { checkDtype, checkGiven, checkShapes } from '../check.js';
import { isFused, type PlainForm } from '../form.js';
import { lastAxis, rowsAndWidth } from '../rows.js';
import { fusedOp } from '../wasm/fusedOp.js';
import { gradientOf } from '../wasm/optional.js';

export interface MlgruGateInputs {
  /** [..., D], the output of the gate's projection. */
  f: tf.Tensor;
  /** [..., D], the output of the input's projection. */
  i: tf.Tensor;
  /** [D], least share of the state that is kept, in [0, 1); 0 if absent. */
  lowerBound?: tf.Tensor;
}

export interface MlgruGateOptions {
  form?: PlainForm;
}

export type MlgruGateOutput = {
  /** [..., D], the share of the state that is kept, in (0, 1). */
  keep: tf.Tensor;
  /** [..., D], what is added to it. */
  input: tf.Tensor;
};

/**
 * keep = lowerBound + (1 - lowerBound) sigmoid(f), input = silu(i) (1 - keep), for `linearScan({ a: keep, b: input })`.
 * @throws TypeError for a missing or non-float32 tensor, RangeError for shapes that do not fit
 */
export function mlgruGate(
  { f, i, lowerBound }: MlgruGateInputs,
  { form = 'auto' }: MlgruGateOptions = {},
): MlgruGateOutput {
  checkGiven('mlgruGate', { f, i });
  checkDtype('mlgruGate', { f, i, lowerBound });
  checkShapes('mlgruGate', { i: [i, f.shape], lowerBound: [lowerBound, [lastAxis('mlgruGate', f)]] });
  if (isFused('mlgruGate', form)) {
    const [keep, input] = fused({ f, i, lowerBound }, {});
    return { keep, input };
  }
  return tf.tidy(() => {
    const free = lowerBound ? tf.sub(1, lowerBound) : tf.scalar(1);
    const forget = tf.mul(tf.sigmoid(tf.neg(f)), free); // 1 - keep, which would lose the digits of a small one
    return { keep: tf.sub(1, forget), input: tf.mul(tf.mul(i, tf.sigmoid(i)), forget) };
  });
}

const fused = fusedOp<'f' | 'i' | 'lowerBound', object, 'lowerBound'>({
  name: 'MlgruGate',
  inputs: ['f', 'i', 'lowerBound'],
  forward(ctx, { f, i, lowerBound }) {
    const [rows, D] = rowsAndWidth(f);
    const [keep, input] = [ctx.out(f.shape), ctx.out(f.shape)];
    const pointers = [f, i, lowerBound, keep, input].map((t) => ctx.ptr(t));
    ctx.kernels.mlgruGateFwd(...pointers, rows, D);
    return [keep, input];
  },
  backward(ctx, [dKeep, dInput], { f, i, lowerBound }) {
    const [rows, D] = rowsAndWidth(f);
    const [df, di, dBound] = [ctx.out(f.shape), ctx.out(f.shape), gradientOf(ctx, lowerBound)];
    const pointers = [f, i, lowerBound, dKeep, dInput, df, di, dBound].map((t) => ctx.ptr(t));
    ctx.scratch(12 * D, (total) => ctx.kernels.mlgruGateBwd(...pointers, rows, D, total + 8 * D, total));
    return { f: df, i: di, lowerBound: dBound };
  },
});
