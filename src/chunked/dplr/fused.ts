/** The generalised delta rule by our WebAssembly kernels: one call for all heads and sequences, forward and backward. */
import * as tf from '@tensorflow/tfjs';
import type { DeltaOutput } from '../delta/inputs.js';
import { fusedOp } from '../wasm/fusedOp.js';
import { gradientOf } from '../wasm/optional.js';
import { lengthsOf, offsetsOf, withOffsets } from '../wasm/sequences.js';
import type { DplrInputs } from './index.js';

/**
 * The fused form of `dplr`: same contract, inputs already checked; needs the wasm backend. Differentiable once, in every input and
 * through both outputs.
 */
export function fusedDplr(inputs: DplrInputs, scale: number, cuSeqlens?: Int32Array): DeltaOutput {
  return tf.tidy(() => {
    const [o, finalState] = fused({ ...inputs }, { scale, offsets: offsetsOf(inputs.q, cuSeqlens) });
    return { o, finalState };
  });
}

type Input = 'q' | 'k' | 'v' | 'a' | 'b' | 'g' | 'initialState';

interface Attrs {
  scale: number;
  /** First token of every sequence, counted through the batch, and the end of the last. */
  offsets: number[];
}

/** Outputs after the first two are for the backward pass alone: what a reads, and the states between segments. */
const fused = fusedOp<Input, Attrs, 'initialState'>({
  name: 'Dplr',
  inputs: ['q', 'k', 'v', 'a', 'b', 'g', 'initialState'],
  saveOutputs: true,
  forward(ctx, { q, k, v, a, b, g, initialState }, { scale, offsets }, taped) {
    const { N, H, K, V } = sizes(q, v, offsets);
    const o = ctx.out(v.shape);
    const finalState = ctx.out([N, H, K, V]);
    const startsSize = lengthsOf(offsets).reduce((sum, T) => sum + ctx.kernels.dplrStarts(T, H, K, V), 0);
    const kept = taped ? [v.shape, [startsSize]].map((shape) => ctx.out(shape)) : [];
    const [z, starts] = kept;
    withOffsets(ctx, offsets, ctx.kernels.dplrFwdScratch(H, K, V), (table, scratch) =>
      ctx.kernels.dplrFwd(
        ...[q, k, v, a, b, g, initialState, o, finalState, z, starts].map((x) => ctx.ptr(x)),
        ...[table, N, H, K, V, scale, scratch],
      ),
    );
    return [o, finalState, ...kept];
  },
  backward(ctx, [dO, dFinalState], { q, k, v, a, b, g, initialState }, [, , z, starts], { scale, offsets }) {
    const { N, H, K, V } = sizes(q, v, offsets);
    const [dq, dk, dv, da, db, dg] = [q, k, v, a, b, g].map((x) => ctx.out(x.shape));
    const dInitialState = gradientOf(ctx, initialState);
    withOffsets(ctx, offsets, ctx.kernels.dplrBwdScratch(Math.max(...lengthsOf(offsets)), H, K, V), (table, scratch) =>
      ctx.kernels.dplrBwd(
        ...[q, k, v, a, b, g, initialState, z, starts, dO, dFinalState].map((x) => ctx.ptr(x)),
        ...[dq, dk, dv, da, db, dg, dInitialState].map((x) => ctx.ptr(x)),
        ...[table, N, H, K, V, scale, scratch],
      ),
    );
    return { q: dq, k: dk, v: dv, a: da, b: db, g: dg, initialState: dInitialState };
  },
});

function sizes(q: tf.TensorInfo, v: tf.TensorInfo, offsets: number[]) {
  const [, , H, K] = q.shape;
  return { N: offsets.length - 1, H, K, V: v.shape[3] };
}
