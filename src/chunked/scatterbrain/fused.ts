/** Scatterbrain attention by our WebAssembly kernels: one call for all sequences and heads, linear in the number of tokens. */
import * as tf from '@tensorflow/tfjs';
import { fusedOp } from '../wasm/fusedOp.js';
import { gradientOf } from '../wasm/optional.js';
import { WasmContext } from '../wasm/runtime.js';
import type { CoreInputs, CoreOutput, CoreSettings } from './core.js';
import { type Round, supportTable } from './support.js';

/** Same contract as `plainScatterbrain`; needs the wasm backend. Differentiable once. */
export function fusedScatterbrain(
  inputs: CoreInputs,
  settings: CoreSettings,
  rounds: readonly (readonly Round[])[],
): CoreOutput {
  const perHead = rounds[0]?.length ?? 0;
  const table = perHead ? settings.keep(supportTable(rounds)) : undefined;
  const [B, T] = inputs.q.shape;
  const every = (n: number) => Array.from({ length: B + 1 }, (_, b) => b * n);
  const offsets = settings.cuSeqlens ? Array.from(settings.cuSeqlens) : every(T);
  const keyOffsets = settings.cuSeqlens ? offsets : every(inputs.k.shape[1] as number);
  const { softmaxTemp, causal, windowSize, slots, past, outputFinalState } = settings;
  const attrs: Attrs = { softmaxTemp, causal, windowSize, slots, past, outputFinalState, offsets, keyOffsets, perHead };
  const [o, lowRank, normalizer, exponent] = fused({ ...inputs, table }, attrs);
  return outputFinalState && inputs.projection ? { o, lowRank, normalizer, exponent } : { o };
}

interface Attrs {
  softmaxTemp: number;
  causal: boolean;
  windowSize: number;
  slots: number;
  past: number;
  outputFinalState: boolean;
  /** First query of every sequence, counted through the batch, and the end of the last. */
  offsets: number[];
  keyOffsets: number[];
  /** Rounds of a sequence and head. */
  perHead: number;
}

type Name = 'q' | 'k' | 'v' | 'projection' | 'lowRank' | 'normalizer' | 'exponent' | 'table';
type Optional = 'projection' | 'lowRank' | 'normalizer' | 'exponent' | 'table';

/** The outputs are o, the state (empty tensors where it is not wanted), and what the backward pass needs of every query. */
const fused = fusedOp<Name, Attrs, Optional>({
  name: 'Scatterbrain',
  inputs: ['q', 'k', 'v', 'projection', 'lowRank', 'normalizer', 'exponent', 'table'],
  saveOutputs: true,
  forward(ctx, x, attrs) {
    const [B, T, H] = x.q.shape;
    const V = x.v.shape[3];
    const state = attrs.outputFinalState && x.projection ? { N: B, m: 2 * x.projection.shape[0] } : { N: 0, m: 0 };
    const o = ctx.out([B, T, H, V]);
    const [lowRank, normalizer] = [ctx.out([state.N, H, state.m, V]), ctx.out([state.N, H, state.m])];
    const exponent = ctx.out([state.N, H], 'int32');
    const stats = ctx.out([B, T, H, 2]);
    const after = state.N ? [lowRank, normalizer, exponent] : [undefined, undefined, undefined];
    call(ctx, x, attrs, false, (before, rest) =>
      ctx.kernels.scatterbrainFwd(...before, ...[o, stats, ...after].map((t) => ctx.ptr(t)), ...rest),
    );
    return [o, lowRank, normalizer, exponent, stats];
  },
  backward(ctx, [dO, dLowRank, dNormalizer], x, [o, , , exponent, stats], attrs) {
    const [dq, dk, dv] = [x.q, x.k, x.v].map((t) => ctx.out(t.shape));
    const before = [x.lowRank, x.normalizer].map((t) => gradientOf(ctx, t));
    const after =
      attrs.outputFinalState && x.projection
        ? [exponent, dO, dLowRank, dNormalizer]
        : [undefined, dO, undefined, undefined];
    call(ctx, x, attrs, true, (first, rest) =>
      ctx.kernels.scatterbrainBwd(
        ...first,
        ...[o, stats, ...after, dq, dk, dv, ...before].map((t) => ctx.ptr(t)),
        ...rest,
      ),
    );
    return { q: dq, k: dk, v: dv, lowRank: before[0], normalizer: before[1] };
  },
});

/** `rotationBuckets` by a kernel, to the last bit: x [B, T, H, E] and rotations [E, rounds, half] -> [B, T, H, rounds]. */
export function fusedBuckets(x: tf.Tensor, rotations: ArrayLike<number>, rounds: number): Int32Array {
  const ctx = WasmContext.of(tf.backend());
  const E = x.shape[3] as number;
  const [rows, half] = [x.size / E, rotations.length / (E * rounds)];
  const [vectors, buckets] = [rotations.length, rows * rounds].map((n) => (4 * n + 15) & ~15);
  return ctx.scratch(vectors + buckets + ctx.kernels.scatterbrainBucketsScratch(E, rounds, half), (at) => {
    new Float32Array(ctx.memory.buffer, at, rotations.length).set(rotations);
    ctx.kernels.scatterbrainBuckets(ctx.ptr(x), at, at + vectors, rows, E, rounds, half, at + vectors + buckets);
    return ctx.readInts(at + vectors, rows * rounds);
  });
}

/** Bytes of the plan that a kernel lays out at the start of its scratch memory. */
const PLAN = 1024;

/** Scratch for a kernel, the offsets before it, and the arguments that both kernels share: those before the outputs and those after. */
function call(
  ctx: WasmContext,
  {
    q,
    k,
    v,
    projection,
    lowRank,
    normalizer,
    exponent,
    table,
  }: Record<'q' | 'k' | 'v', tf.TensorInfo> & Partial<Record<Optional, tf.TensorInfo>>,
  attrs: Attrs,
  backward: boolean,
  body: (before: number[], rest: number[]) => void,
): void {
  const { offsets, keyOffsets, perHead, softmaxTemp, causal, windowSize, slots, past } = attrs;
  const [, , H, E] = q.shape;
  const [V, r] = [v.shape[3], projection?.shape[0] ?? 0];
  const sizes = [longest(offsets), longest(keyOffsets)];
  const bytes = ctx.scratch(PLAN, (plan) =>
    ctx.kernels.scatterbrainScratch(plan, ...sizes, E, V, r, perHead, backward ? 1 : 0),
  );
  const ints = (offsets.length * 4 + 15) & ~15;
  ctx.scratch(2 * ints + bytes, (at) => {
    ctx.writeInts(at, offsets);
    ctx.writeInts(at + ints, keyOffsets);
    const inputs = [q, k, v, projection, lowRank, normalizer, exponent, table].map((t) => ctx.ptr(t));
    body(
      [...inputs, at, at + ints],
      [
        ...[offsets.length - 1, H, E, V, r, perHead, ...sizes],
        ...[softmaxTemp, r ? -Math.log(2 * r) / 2 : 0, causal ? 1 : 0, windowSize, slots, past, at + 2 * ints],
      ],
    );
  });
}

/** Tokens of the longest sequence. */
function longest(offsets: number[]): number {
  return Math.max(...offsets.slice(1).map((end, n) => end - offsets[n]));
}
