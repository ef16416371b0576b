/** The ridge regression of Gated KalmaNet by our WebAssembly kernels: one call for all heads and sequences, forward and backward. */
import * as tf from '@tensorflow/tfjs';
import type { OpOutput } from '../packed.js';
import { fusedOp } from '../wasm/fusedOp.js';
import { gradientOf } from '../wasm/optional.js';
import { lengthsOf, offsetsOf, withOffsets } from '../wasm/sequences.js';

type Input = 'q' | 'k' | 'g' | 'alpha' | 'kk';

export interface QueryInputs {
  q: tf.Tensor;
  k: tf.Tensor;
  alpha: tf.Tensor;
  /** [B, T, H]; absent where kk does not decay. */
  g?: tf.Tensor;
  /** [N, H, D, D]; zeros when absent. */
  kk?: tf.Tensor;
}

export interface FusedQueriesOptions {
  /** Steps of the Chebyshev iteration; 0: x = q. */
  numIterations: number;
  ridgeRatio: number;
  lambdaGradient: boolean;
  cuSeqlens?: Int32Array;
}

/**
 * The queries that linear attention reads with, q + alpha (x - q) [B, T, H, D], as `o`, and kk [N, H, D, D] after the last token: by the Chebyshev
 * iteration, inputs already checked; needs the wasm backend. Without g, kk does not decay. Differentiable once, in every input and through
 * both outputs.
 */
export function fusedQueries(
  inputs: QueryInputs,
  { numIterations, ridgeRatio, lambdaGradient, cuSeqlens }: FusedQueriesOptions,
): OpOutput {
  return tf.tidy(() => {
    const offsets = offsetsOf(inputs.q, cuSeqlens);
    const [o, finalState] = fused({ ...inputs }, { numIterations, ridgeRatio, lambdaGradient, offsets });
    return { o, finalState };
  });
}

interface Attrs extends Omit<FusedQueriesOptions, 'cuSeqlens'> {
  /** First token of every sequence, counted through the batch, and the end of the last. */
  offsets: number[];
}

/** Outputs after the first two are for the backward pass alone: x, norms of the matrices, matrices between segments. */
const fused = fusedOp<Input, Attrs, 'g' | 'kk'>({
  name: 'GatedKalmaNet',
  inputs: ['q', 'k', 'g', 'alpha', 'kk'],
  saveOutputs: true,
  forward(ctx, { q, k, g, alpha, kk }, { numIterations, ridgeRatio, offsets }) {
    const [, , H, D] = q.shape;
    const N = offsets.length - 1;
    const [queries, x, norms] = [q, q, alpha].map((like) => ctx.out(like.shape));
    const final = ctx.out([N, H, D, D]);
    const starts = ctx.out([lengthsOf(offsets).reduce((sum, T) => sum + ctx.kernels.gatedKalmaNetStarts(T, H, D), 0)]);
    withOffsets(ctx, offsets, ctx.kernels.gatedKalmaNetFwdScratch(H, D), (table, scratch) =>
      ctx.kernels.gatedKalmaNetFwd(
        ...[q, k, g, alpha, kk, queries, final, x, norms, starts].map((tensor) => ctx.ptr(tensor)),
        ...[table, N, H, D, numIterations, ridgeRatio, scratch],
      ),
    );
    return [queries, final, x, norms, starts];
  },
  backward(ctx, [dQueries, dFinal], { q, k, g, alpha, kk }, [, , x, norms, starts], { offsets, ...options }) {
    const { numIterations, ridgeRatio, lambdaGradient } = options;
    const [, , H, D] = q.shape;
    const [dq, dk, dAlpha] = [q, k, alpha].map((like) => ctx.out(like.shape));
    const [dg, dKk] = [gradientOf(ctx, g), gradientOf(ctx, kk)];
    const T = Math.max(...lengthsOf(offsets));
    withOffsets(ctx, offsets, ctx.kernels.gatedKalmaNetBwdScratch(T, H, D), (table, scratch) =>
      ctx.kernels.gatedKalmaNetBwd(
        ...[q, k, g, alpha, kk, x, norms, starts, dQueries, dFinal].map((tensor) => ctx.ptr(tensor)),
        ...[dq, dk, dg, dAlpha, dKk].map((tensor) => ctx.ptr(tensor)),
        ...[T, table, offsets.length - 1, H, D, numIterations, ridgeRatio, Number(lambdaGradient), scratch],
      ),
    );
    return { q: dq, k: dk, g: dg, alpha: dAlpha, kk: dKk };
  },
});
