/** What the plain forms that carry states are given, and how two of them end. */
import * as tf from '@tensorflow/tfjs';
import { type Complex, parts, times } from './complex.js';

/** Discretised modes, checked. */
export interface StateInputs {
  /** [B, T, H] */
  u: tf.Tensor;
  /** [H, M, 2] */
  zeta: tf.Tensor;
  /** [H, M, 2] */
  psi: tf.Tensor;
  /** [R, M, 2] */
  b: tf.Tensor;
  /** [H, M, 2] */
  c: tf.Tensor;
  /** [H] */
  d?: tf.Tensor;
  /** [N, H, M, 2] */
  initialState?: tf.Tensor;
}

export interface StateOptions {
  /** Of Re(c x): 2 for modes that stand for conjugate pairs, else 1. */
  factor: number;
  chunkSize: number;
  /** Whether the final state is wanted. */
  final: boolean;
}

export interface StateOutput {
  o: tf.Tensor;
  finalState?: tf.Tensor;
}

export type StateForm = (inputs: StateInputs, options: StateOptions) => StateOutput;

/** psi b [H, M]. */
export function inputWeights({ psi, b }: Pick<StateInputs, 'psi' | 'b'>): Complex {
  return times(parts(psi), parts(shared(b, psi.shape[0])));
}

/** [R, M, 2] -> [H, M, 2]: channel h has copy h mod R. */
export function shared(x: tf.Tensor, H: number): tf.Tensor {
  const [R] = x.shape;
  return R === H ? x : tf.tile(x, [H / R, 1, 1]);
}

/** factor Re(sum over modes of c x) for x [..., H, M]. */
export function read(x: Complex, c: Complex, factor: number): tf.Tensor {
  return tf.mul(factor, tf.sum(tf.sub(tf.mul(c.re, x.re), tf.mul(c.im, x.im)), -1));
}

/** o + d u. */
export function withSkip(o: tf.Tensor, { u, d }: Pick<StateInputs, 'u' | 'd'>): tf.Tensor {
  return d ? tf.add(o, tf.mul(u, d)) : o;
}
