/** Modes x' = a x + v looked at after steps of any length: S5 on irregular samples (https://arxiv.org/abs/2208.04933, section 4.3). */
import * as tf from '@tensorflow/tfjs';
import { checkCuSeqlens, checkDtype, checkGiven, checkOneOf, checkShapes } from '../check.js';
import { type DiscretisationRule, discretise } from '../discretise/index.js';
import { pairExp, pairTimes } from '../pairs.js';
import { fusedOp } from '../wasm/fusedOp.js';
import { gradientOf } from '../wasm/optional.js';
import { hasFusedKernels } from '../wasm/runtime.js';
import { offsetsOf, withOffsets } from '../wasm/sequences.js';
import { type LinearScanOptions, type LinearScanOutput, linearScan } from './index.js';

/** All float32, complex numbers as pairs [re, im]. P modes, N = B or the number of packed documents. */
export interface IrregularScanInputs {
  /** Continuous modes [P, 2]. */
  a: tf.Tensor;
  /** The step of each mode where the interval is 1, [P]. */
  dt: tf.Tensor;
  /** [B, T]: multiplies the steps of a token. */
  intervals: tf.Tensor;
  /** [B, T, P, 2] */
  b: tf.Tensor;
  /** State before the first token read, [N, P, 2]; zeros when absent. */
  initialState?: tf.Tensor;
}

export interface IrregularScanOptions extends LinearScanOptions {
  /** Default 'zoh'. */
  rule?: DiscretisationRule;
}

/**
 * h_t = e^{zeta_t} h_{t-1} + psi_t b_t with zeta and psi as `discretise` gives them for the step dt interval_t: equal to `linearScan` on
 * those, without a tensor for either. Differentiable in every input and through both outputs. `reverse` uses the same step at the same token.
 * @throws TypeError when an input is missing or not float32
 * @throws RangeError when a shape or an option is wrong
 */
export function irregularScan(inputs: IrregularScanInputs, options: IrregularScanOptions = {}): LinearScanOutput {
  check(inputs, options);
  const { rule = 'zoh', reverse = false, form = 'auto', cuSeqlens } = options;
  const { a, dt, intervals, b, initialState } = inputs;
  if (form === 'auto' && hasFusedKernels('irregularScan')) {
    const attrs = { bilinear: rule === 'bilinear', reverse, offsets: offsetsOf(b, cuSeqlens) };
    const [o, finalState] = fused({ a, dt, intervals, b, initialState }, attrs);
    return { o, finalState };
  }
  return tf.tidy(() => {
    const steps = tf.mul(tf.expandDims(intervals, 2), dt);
    const { zeta, psi } = discretise({ dt: steps, a }, { rule, form: 'plain' });
    const scan = { a: pairExp(zeta), b: pairTimes(psi, b), initialState };
    return linearScan(scan, { ...options, form: form === 'auto' ? 'chunk' : form });
  });
}

function check({ a, dt, intervals, b, initialState }: IrregularScanInputs, options: IrregularScanOptions): void {
  const { rule, form, cuSeqlens } = options;
  checkGiven('irregularScan', { a, dt, intervals, b });
  checkDtype('irregularScan', { a, dt, intervals, b, initialState });
  checkShapes('irregularScan', { b: [b, [null, null, null, 2]] });
  const [B, T, P] = b.shape;
  if (b.size === 0) throw new RangeError(`irregularScan: b must not be empty, got [${b.shape}]`);
  checkShapes('irregularScan', { a: [a, [P, 2]], dt: [dt, [P]], intervals: [intervals, [B, T]] });
  checkCuSeqlens('irregularScan', cuSeqlens, B, T);
  checkShapes('irregularScan', { initialState: [initialState, [cuSeqlens ? cuSeqlens.length - 1 : B, P, 2]] });
  if (rule !== undefined) checkOneOf('irregularScan', 'rule', rule, ['zoh', 'bilinear']);
  if (form !== undefined) checkOneOf('irregularScan', 'form', form, ['auto', 'chunk', 'scan', 'recurrent']);
}

interface Attrs {
  bilinear: boolean;
  reverse: boolean;
  /** First token of every sequence, counted through the batch, and the end of the last. */
  offsets: number[];
}

const fused = fusedOp<'a' | 'dt' | 'intervals' | 'b' | 'initialState', Attrs, 'initialState'>({
  name: 'IrregularScan',
  inputs: ['a', 'dt', 'intervals', 'b', 'initialState'],
  saveOutputs: true,
  forward(ctx, { a, dt, intervals, b, initialState }, { bilinear, reverse, offsets }) {
    const N = offsets.length - 1;
    const [P] = a.shape;
    const [o, finalState] = [ctx.out(b.shape), ctx.out([N, P, 2])];
    withOffsets(ctx, offsets, 0, (table) =>
      ctx.kernels.irregularScanFwd(
        ...[a, dt, intervals, b, initialState, o, finalState].map((x) => ctx.ptr(x)),
        ...[table, N, P, Number(bilinear), Number(reverse)],
      ),
    );
    return [o, finalState];
  },
  backward(ctx, [dO, dFinal], { a, dt, intervals, b, initialState }, [o], { bilinear, reverse, offsets }) {
    const [P] = a.shape;
    const [dA, dDt, dIntervals, db] = [a, dt, intervals, b].map((x) => ctx.out(x.shape));
    const dInitial = gradientOf(ctx, initialState);
    const carryBytes = (8 * P + 15) & ~15;
    withOffsets(ctx, offsets, carryBytes + 24 * P, (table, carry) => {
      new Uint8Array(ctx.memory.buffer, carry + carryBytes, 24 * P).fill(0);
      ctx.kernels.irregularScanBwd(
        ...[a, dt, intervals, b, initialState, o, dO, dFinal].map((x) => ctx.ptr(x)),
        ...[dA, dDt, dIntervals, db, dInitial].map((x) => ctx.ptr(x)),
        ...[table, offsets.length - 1, P, Number(bilinear), Number(reverse), carry, carry + carryBytes],
      );
    });
    return { a: dA, dt: dDt, intervals: dIntervals, b: db, initialState: dInitial };
  },
});
