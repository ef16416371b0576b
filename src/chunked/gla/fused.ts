/** Gated linear attention by our WebAssembly kernels: one call for all heads and sequences, forward and backward. */
import * as tf from '@tensorflow/tfjs';
import { fusedOp } from '../wasm/fusedOp.js';
import { gradientOf } from '../wasm/optional.js';
import { lengthsOf, offsetsOf, withOffsets } from '../wasm/sequences.js';

type Input = 'q' | 'k' | 'v' | 'g' | 'initialState';

export interface FusedGlaOptions {
  /** Factor on the queries. */
  scale: number;
  /** Offsets of packed documents (batch 1), see `gla`. */
  cuSeqlens?: Int32Array;
}

/**
 * The fused form of `gla`: same contract, inputs already checked; needs the wasm backend. Differentiable once, in every input and
 * through both outputs.
 */
export function fusedGla(
  { q, k, v, g, initialState }: { q: tf.Tensor; k: tf.Tensor; v: tf.Tensor; g: tf.Tensor; initialState?: tf.Tensor },
  { scale, cuSeqlens }: FusedGlaOptions,
): { o: tf.Tensor; finalState: tf.Tensor } {
  return tf.tidy(() => {
    const [o, finalState] = fused({ q, k, v, g, initialState }, { scale, offsets: offsetsOf(q, cuSeqlens) });
    return { o, finalState };
  });
}

interface Attrs {
  scale: number;
  /** First token of every sequence, counted through the batch, and the end of the last. */
  offsets: number[];
}

/** The third output, the states at the starts of segments, is for the backward pass alone. */
const fused = fusedOp<Input, Attrs, 'initialState'>({
  name: 'Gla',
  inputs: ['q', 'k', 'v', 'g', 'initialState'],
  saveOutputs: true,
  forward(ctx, { q, k, v, g, initialState }, { scale, offsets }, taped) {
    const { N, H, K, V, perHead } = sizes(q, v, g, offsets);
    const o = ctx.out(v.shape);
    const finalState = ctx.out([N, H, K, V]);
    const startsSize = lengthsOf(offsets).reduce((sum, T) => sum + ctx.kernels.glaStarts(T, H, K, V), 0);
    const starts = taped ? ctx.out([startsSize]) : undefined;
    withOffsets(ctx, offsets, ctx.kernels.glaFwdScratch(H, K, V), (table, scratch) =>
      ctx.kernels.glaFwd(
        ...[q, k, v, g, initialState, o, finalState, starts].map((x) => ctx.ptr(x)),
        ...[table, N, H, K, V, perHead, scale, scratch],
      ),
    );
    return starts ? [o, finalState, starts] : [o, finalState];
  },
  backward(ctx, [dO, dFinalState], { q, k, v, g, initialState }, [, , starts], { scale, offsets }) {
    const { N, H, K, V, perHead } = sizes(q, v, g, offsets);
    const [dq, dk, dv, dg] = [q, k, v, g].map((x) => ctx.out(x.shape));
    const dInitialState = gradientOf(ctx, initialState);
    withOffsets(ctx, offsets, ctx.kernels.glaBwdScratch(Math.max(...lengthsOf(offsets)), H, K, V), (table, scratch) =>
      ctx.kernels.glaBwd(
        ...[q, k, v, g, initialState, starts, dO, dFinalState, dq, dk, dv, dg, dInitialState].map((x) => ctx.ptr(x)),
        ...[table, N, H, K, V, perHead, scale, scratch],
      ),
    );
    return { q: dq, k: dk, v: dv, g: dg, initialState: dInitialState };
  },
});

function sizes(q: tf.TensorInfo, v: tf.TensorInfo, g: tf.TensorInfo, offsets: number[]) {
  const [, , H, K] = q.shape;
  return { N: offsets.length - 1, H, K, V: v.shape[3], perHead: g.shape.length === 3 ? 1 : 0 };
}
