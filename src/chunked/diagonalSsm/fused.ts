/** Diagonal state spaces by our WebAssembly kernels: one call for all channels and sequences, forward and backward. */
import * as tf from '@tensorflow/tfjs';
import { fusedOp } from '../wasm/fusedOp.js';
import { gradientOf } from '../wasm/optional.js';
import { lengthsOf, offsetsOf, withOffsets } from '../wasm/sequences.js';
import type { StateInputs, StateOutput } from './states.js';

type Input = 'u' | 'zeta' | 'psi' | 'b' | 'c' | 'd' | 'initialState';

export interface FusedOptions {
  /** Of Re(c x). */
  factor: number;
  /** Whether the final state is wanted. */
  final: boolean;
  /** Offsets of packed documents (batch 1). */
  cuSeqlens?: Int32Array;
}

/** The state form: inputs already checked; needs the wasm backend. Differentiable once, in every input and through both outputs. */
export function fusedDiagonalSsm(inputs: StateInputs, { factor, final, cuSeqlens }: FusedOptions): StateOutput {
  const { u, zeta, psi, b, c, d, initialState } = inputs;
  return tf.tidy(() => {
    const attrs = { factor, final, offsets: offsetsOf(u, cuSeqlens) };
    const [o, finalState] = fused({ u, zeta, psi, b, c, d, initialState }, attrs);
    return { o, ...(finalState && { finalState }) };
  });
}

interface Attrs {
  factor: number;
  final: boolean;
  /** First token of every sequence, counted through the batch, and the end of the last. */
  offsets: number[];
}

const fused = fusedOp<Input, Attrs, 'd' | 'initialState'>({
  name: 'DiagonalSsm',
  inputs: ['u', 'zeta', 'psi', 'b', 'c', 'd', 'initialState'],
  forward(ctx, { u, zeta, psi, b, c, d, initialState }, { factor, final, offsets }) {
    const { N, H, M, copies, Q, R } = sizes(u, c, b, offsets);
    const o = ctx.out(u.shape);
    const finalState = final ? ctx.out([N, H, M, 2]) : undefined;
    const tensors = [u, zeta, psi, b, c, d, initialState, o, finalState].map((x) => ctx.ptr(x));
    if (offsets[N] === N)
      ctx.scratch(ctx.kernels.diagonalSsmTokenScratch(M), (scratch) =>
        ctx.kernels.diagonalSsmToken(...tensors, N, H, M, copies, factor, scratch),
      );
    else
      withOffsets(ctx, offsets, ctx.kernels.diagonalSsmFwdScratch(R, M, Q), (table, scratch) =>
        ctx.kernels.diagonalSsmFwd(...tensors, table, N, H, M, copies, factor, Q, scratch),
      );
    return finalState ? [o, finalState] : [o];
  },
  backward(ctx, [dO, dFinalState], { u, zeta, psi, b, c, d, initialState }, _, { factor, offsets }) {
    const { N, H, M, copies, Q, R } = sizes(u, c, b, offsets);
    const [du, dZeta, dPsi, db, dc] = [u, zeta, psi, b, c].map((x) => ctx.out(x.shape));
    const [dd, dInitialState] = [gradientOf(ctx, d), gradientOf(ctx, initialState)];
    const given = [u, zeta, psi, b, c, d, initialState, dO, dFinalState].map((x) => ctx.ptr(x));
    const made = [du, dZeta, dPsi, db, dc, dd, dInitialState].map((x) => ctx.ptr(x));
    withOffsets(ctx, offsets, ctx.kernels.diagonalSsmBwdScratch(R, M, Q), (table, scratch) =>
      ctx.kernels.diagonalSsmBwd(...given, ...made, table, N, H, M, copies, factor, Q, scratch),
    );
    return { u: du, zeta: dZeta, psi: dPsi, b: db, c: dc, d: dd, initialState: dInitialState };
  },
});

/** Q: tokens of a chunk, a multiple of 8; R: chunks of all sequences. */
function sizes(u: tf.TensorInfo, c: tf.TensorInfo, b: tf.TensorInfo, offsets: number[]) {
  const lengths = lengthsOf(offsets);
  const Q = Math.max(...lengths) > 8 ? 16 : 8;
  const R = lengths.reduce((sum, T) => sum + Math.ceil(T / Q), 0);
  return { N: lengths.length, H: u.shape[2], M: c.shape[1], copies: b.shape[0], Q, R };
}
