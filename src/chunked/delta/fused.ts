/** The delta rules by our WebAssembly kernels: one call for all heads and sequences, forward and backward. */
import * as tf from '@tensorflow/tfjs';
import { fusedOp } from '../wasm/fusedOp.js';
import { gradientOf } from '../wasm/optional.js';
import { lengthsOf, offsetsOf, withOffsets } from '../wasm/sequences.js';
import type { AnyDeltaInputs, DeltaOutput } from './inputs.js';

/**
 * The fused form of the delta rules: same contract, inputs already checked; needs the wasm backend. Gates per channel, per head or
 * none, by the shape of g. Differentiable once, in every input and through both outputs.
 */
export function fusedDelta(inputs: AnyDeltaInputs, scale: number, cuSeqlens?: Int32Array): DeltaOutput {
  return tf.tidy(() => {
    const [o, finalState] = fused({ ...inputs }, { scale, offsets: offsetsOf(inputs.q, cuSeqlens) });
    return { o, finalState };
  });
}

type Input = 'q' | 'k' | 'v' | 'beta' | 'g' | 'initialState';

interface Attrs {
  scale: number;
  /** First token of every sequence, counted through the batch, and the end of the last. */
  offsets: number[];
}

/** Outputs after the first two are for the backward pass alone: residuals, rows of -A (README, section 5), states between segments. */
const fused = fusedOp<Input, Attrs, 'g' | 'initialState'>({
  name: 'Delta',
  inputs: ['q', 'k', 'v', 'beta', 'g', 'initialState'],
  saveOutputs: true,
  forward(ctx, { q, k, v, beta, g, initialState }, { scale, offsets }, taped) {
    const { N, H, HV, K, V, gates } = sizes(q, v, g, offsets);
    const [B, T] = q.shape;
    const o = ctx.out(v.shape);
    const finalState = ctx.out([N, HV, K, V]);
    const startsSize = lengthsOf(offsets).reduce((sum, n) => sum + ctx.kernels.deltaStarts(n, HV, K, V), 0);
    const kept = taped ? [v.shape, [B, T, HV, 16], [startsSize]].map((shape) => ctx.out(shape)) : [];
    const [residuals, solves, starts] = kept;
    withOffsets(ctx, offsets, ctx.kernels.deltaFwdScratch(HV, K, V), (table, scratch) =>
      ctx.kernels.deltaFwd(
        ...[q, k, v, beta, g, initialState, o, finalState, residuals, solves, starts].map((x) => ctx.ptr(x)),
        ...[table, N, H, HV, K, V, gates, scale, scratch],
      ),
    );
    return [o, finalState, ...kept];
  },
  backward(ctx, [dO, dFinalState], inputs, [, , residuals, solves, starts], { scale, offsets }) {
    const { q, k, v, beta, g, initialState } = inputs;
    const { N, H, HV, K, V, gates } = sizes(q, v, g, offsets);
    const [dq, dk, dv, dbeta] = [q, k, v, beta].map((x) => ctx.out(x.shape));
    const [dg, dInitialState] = [gradientOf(ctx, g), gradientOf(ctx, initialState)];
    const T = Math.max(...lengthsOf(offsets));
    withOffsets(ctx, offsets, ctx.kernels.deltaBwdScratch(T, HV, K, V), (table, scratch) =>
      ctx.kernels.deltaBwd(
        ...[q, k, beta, g, initialState, residuals, solves, starts, dO, dFinalState].map((x) => ctx.ptr(x)),
        ...[dq, dk, dv, dbeta, dg, dInitialState].map((x) => ctx.ptr(x)),
        ...[T, table, N, H, HV, K, V, gates, scale, scratch],
      ),
    );
    return { q: dq, k: dk, v: dv, beta: dbeta, g: dg, initialState: dInitialState };
  },
});

/** `gates`: 0 none, 1 per head, 2 per channel. */
function sizes(q: tf.TensorInfo, v: tf.TensorInfo, g: tf.TensorInfo | undefined, offsets: number[]) {
  const [, , H, K] = q.shape;
  const [, , HV, V] = v.shape;
  return { N: offsets.length - 1, H, HV, K, V, gates: g ? g.shape.length - 2 : 0 };
}
