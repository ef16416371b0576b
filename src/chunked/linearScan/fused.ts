/** The scan by our WebAssembly kernels: one call for all sequences, forward and backward. */
import * as tf from '@tensorflow/tfjs';
import { fusedOp } from '../wasm/fusedOp.js';
import { gradientOf } from '../wasm/optional.js';
import type { WasmContext } from '../wasm/runtime.js';
import { offsetsOf, withOffsets } from '../wasm/sequences.js';
import type { ScanCall } from './index.js';

/** The fused form of `linearScan`: same contract, inputs already checked; needs the wasm backend. */
export function fusedLinearScan({ a, logs, b, initialState, reverse, cuSeqlens }: ScanCall): {
  o: tf.Tensor;
  finalState: tf.Tensor;
} {
  const kind = b.rank === 4 ? Kind.complex : logs ? Kind.log : Kind.real;
  const [o, finalState] = fused({ a, b, initialState }, { kind, reverse, offsets: offsetsOf(b, cuSeqlens) });
  return { o, finalState };
}

/** As the kernel numbers them. */
const Kind = { real: 0, log: 1, complex: 2 } as const;

interface Attrs {
  kind: 0 | 1 | 2;
  reverse: boolean;
  /** First token of every sequence, counted through the batch, and the end of the last. */
  offsets: number[];
}

const fused = fusedOp<'a' | 'b' | 'initialState', Attrs, 'initialState'>({
  name: 'LinearScan',
  inputs: ['a', 'b', 'initialState'],
  saveOutputs: true,
  forward(ctx, { a, b, initialState }, { kind, reverse, offsets }) {
    const o = ctx.out(b.shape);
    const finalState = ctx.out([offsets.length - 1, ...b.shape.slice(2)]);
    const n = widthOf(b);
    withOffsets(ctx, offsets, rowBytes(n), (table, scratch) => {
      const factors = factorsOf(ctx, a, b, kind, scratch);
      ctx.kernels.linearScanFwd(
        ...[factors.at, ...[b, initialState, o, finalState].map((x) => ctx.ptr(x))],
        ...[table, offsets.length - 1, n, factors.row, factors.kind, Number(reverse)],
      );
    });
    return [o, finalState];
  },
  backward(ctx, [dO, dFinal], { a, b, initialState }, [o], { kind, reverse, offsets }) {
    const [da, db] = [ctx.out(a.shape), ctx.out(b.shape)];
    const dInitial = gradientOf(ctx, initialState);
    const n = widthOf(b);
    const bytes = rowBytes(n);
    withOffsets(ctx, offsets, 5 * bytes, (table, scratch) => {
      const factors = factorsOf(ctx, a, b, kind, scratch);
      const [carry, part, total] = [scratch + bytes, scratch + 2 * bytes, scratch + 3 * bytes];
      new Uint8Array(ctx.memory.buffer, part, 3 * bytes).fill(0);
      ctx.kernels.linearScanBwd(
        ...[factors.at, ...[initialState, o, dO, dFinal, da, db, dInitial].map((x) => ctx.ptr(x))],
        ...[table, offsets.length - 1, n, factors.row, factors.kind, Number(reverse), carry, part, total],
      );
      if (kind === Kind.log && factors.row === 0) ctx.kernels.linearScanTimes(ctx.ptr(da), factors.at, ctx.ptr(da), n);
    });
    return { a: da, b: db, initialState: dInitial };
  },
});

/** Where the factors lie, the bytes from one token's to the next (0: all share one row), and what they are. */
function factorsOf(ctx: WasmContext, a: tf.TensorInfo, b: tf.TensorInfo, kind: number, scratch: number) {
  const n = widthOf(b);
  if (a.shape.length === b.shape.length) return { at: ctx.ptr(a), row: 4 * n, kind };
  if (kind !== Kind.log) return { at: ctx.ptr(a), row: 0, kind };
  ctx.kernels.linearScanExp(ctx.ptr(a), scratch, n); // once, not for each token
  return { at: scratch, row: 0, kind: Kind.real };
}

/** Floats of a token. */
const widthOf = (b: tf.TensorInfo) => tf.util.sizeFromShape(b.shape.slice(2));

/** Of n floats, in whole vectors. */
const rowBytes = (n: number) => (4 * n + 15) & ~15;
