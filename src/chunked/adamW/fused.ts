/** AdamW on wasm: one kernel call per weight, in place, with no op of TensorFlow.js and no new tensor. */
import * as tf from '@tensorflow/tfjs';
import { WasmContext } from '../wasm/runtime.js';
import type { Coefficients, Parameter } from './parameter.js';

/** The norm of every gradient, in float64. */
export function fusedNorms(gradients: tf.Tensor[]): number[] {
  const ctx = WasmContext.of(tf.backend());
  return gradients.map((g) => Math.sqrt(ctx.kernels.adamWSquares(ctx.ptr(g), g.size)));
}

export function fusedUpdate(parameters: Parameter[], coefficients: Coefficients): void {
  const ctx = WasmContext.of(tf.backend());
  for (const parameter of parameters) update(ctx, parameter, coefficients);
}

function update(
  ctx: WasmContext,
  parameter: Parameter,
  { gradScale, beta1, beta2, mScale, vScale, eps }: Coefficients,
): void {
  const { weight, gradient, moments, learningRate, decay } = parameter;
  if (isShared(ctx, weight)) tf.tidy(() => weight.assign(copy(weight)));
  for (const name of ['m', 'v'] as const)
    if (isShared(ctx, moments[name])) {
      const own = tf.keep(copy(moments[name]));
      moments[name].dispose();
      moments[name] = own;
    }
  const pointers = [weight, gradient, moments.m, moments.v].map((x) => ctx.ptr(x));
  const scalars = [gradScale, beta1, beta2, vScale, eps, learningRate * mScale, learningRate * decay];
  ctx.kernels.adamWUpdate(...pointers, weight.size, ...scalars);
  for (const x of [weight, moments.m, moments.v]) ctx.changed(x);
}

/** Whether another tensor has the same memory: a reshape or clone, or the tensor that a variable was made from. */
function isShared(ctx: WasmContext, x: tf.Tensor): boolean {
  ctx.backend.dataIdMap.get(x.dataId); // brings it here if another backend still has it
  return ctx.backend.refCount(x.dataId) > 1;
}

function copy(x: tf.Tensor): tf.Tensor {
  return tf.tensor(x.dataSync(), x.shape, 'float32');
}
