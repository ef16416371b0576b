/** The convolution as a kernel on the wasm backend: shapes and memory; the arithmetic is in kernel.as.ts. */
import { fusedOp } from '../wasm/fusedOp.js';
import { gradientOf } from '../wasm/optional.js';
import type { WasmContext } from '../wasm/runtime.js';
import type { CausalConv1dInputs, CausalConv1dOutput } from './index.js';

interface Attrs {
  silu: boolean;
  cuSeqlens?: Int32Array;
}

export function fusedCausalConv1d(inputs: CausalConv1dInputs, attrs: Attrs): CausalConv1dOutput {
  const [o, finalState] = fused({ ...inputs }, attrs);
  return { o, finalState };
}

type Input = 'x' | 'weight' | 'bias' | 'initialState';

const fused = fusedOp<Input, Attrs, 'bias' | 'initialState'>({
  name: 'CausalConv1d',
  inputs: ['x', 'weight', 'bias', 'initialState'],
  forward(ctx, { x, weight, bias, initialState }, { silu, cuSeqlens }) {
    const [B, T, D, W] = [...x.shape, weight.shape[1]];
    const sequences = sequencesOf(B, T, cuSeqlens);
    const y = ctx.out(x.shape);
    const finalState = ctx.out([sequences.length, D, W]);
    const pointers = [x, weight, bias, initialState, y, finalState].map((t) => ctx.ptr(t));
    if (T === 1) {
      ctx.kernels.causalConv1dStep(...pointers, B, D, W, Number(silu));
      return [y, finalState];
    }
    const [xAt, weightAt, biasAt, stateAt, yAt, finalAt] = pointers;
    withTaps(ctx, weightAt, D, W, 2 * (W - 1) * D, (taps, head) => {
      for (const [n, { token, length }] of sequences.entries()) {
        const [row, state] = [4 * token * D, 4 * n * D * W];
        const at = [xAt + row, taps, biasAt, stateAt && stateAt + state, yAt + row, finalAt + state];
        ctx.kernels.causalConv1dFwd(...at, length, D, W, Number(silu), head);
      }
    });
    return [y, finalState];
  },
  backward(ctx, [dy, dFinalState], { x, weight, bias, initialState }, _, { silu, cuSeqlens }) {
    const [B, T, D, W] = [...x.shape, weight.shape[1]];
    const inputs = [x, weight, bias, initialState];
    const [dx, dWeight, dBias, dState] = inputs.map((t) => gradientOf(ctx, t));
    const [xAt, weightAt, biasAt, stateAt, dyAt, dFinalAt] = [...inputs, dy, dFinalState].map((t) => ctx.ptr(t));
    const [dxAt, dWeightAt, dBiasAt, dStateAt] = [dx, dWeight, dBias, dState].map((t) => ctx.ptr(t));
    const [headSize, sumSize] = [2 * (W - 1) * D, (W + 1) * D];
    withTaps(ctx, weightAt, D, W, 2 * headSize + sumSize, (taps, head) =>
      ctx.scratch(8 * sumSize, (total) => {
        const [dHead, part] = [head + 4 * headSize, head + 8 * headSize];
        new Float32Array(ctx.memory.buffer, part, sumSize).fill(0);
        new Float64Array(ctx.memory.buffer, total, sumSize).fill(0);
        for (const [n, { token, length }] of sequencesOf(B, T, cuSeqlens).entries()) {
          const [row, state] = [4 * token * D, 4 * n * D * W];
          const read = [xAt + row, taps, biasAt, stateAt && stateAt + state, dyAt + row, dFinalAt + state];
          const write = [dxAt + row, dStateAt && dStateAt + state];
          ctx.kernels.causalConv1dBwd(...read, ...write, length, D, W, Number(silu), head, dHead, part, total);
        }
        ctx.kernels.causalConv1dWeightGrad(total, dWeightAt, dBiasAt, D, W);
      }),
    );
    return { x: dx, weight: dWeight, bias: dBias, initialState: dState };
  },
});

/** First token (counted through the batch) and length of every independent sequence. */
function sequencesOf(B: number, T: number, cuSeqlens?: Int32Array): { token: number; length: number }[] {
  if (!cuSeqlens) return Array.from({ length: B }, (_, b) => ({ token: b * T, length: T }));
  return Array.from(cuSeqlens.subarray(1), (end, n) => ({ token: cuSeqlens[n], length: end - cuSeqlens[n] }));
}

/** The weight transposed to [W, D] in scratch memory, with `size` more floats behind it. */
function withTaps(
  ctx: WasmContext,
  weight: number,
  D: number,
  W: number,
  size: number,
  body: (taps: number, rest: number) => void,
) {
  ctx.scratch(4 * (W * D + size), (taps) => {
    ctx.kernels.causalConv1dTaps(weight, taps, D, W);
    body(taps, taps + 4 * W * D);
  });
}
