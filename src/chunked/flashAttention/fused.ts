/** Softmax attention by our WebAssembly kernels: one call for all heads and sequences, memory linear in the number of tokens. */
import type * as tf from '@tensorflow/tfjs';
import { fusedOp } from '../wasm/fusedOp.js';
import type { WasmContext } from '../wasm/runtime.js';
import type { AttentionSettings, FlashAttentionInputs, FlashAttentionOutput } from './index.js';

/** Same contract as `flashAttention`, arguments already checked; needs the wasm backend. Differentiable once. */
export function fusedFlashAttention(
  { q, k, v, bias, keyMask }: FlashAttentionInputs,
  { scale, causal, window = 0, cuSeqlens, biasGradient }: AttentionSettings,
): FlashAttentionOutput {
  const [B, T] = q.shape;
  const every = (n: number) => Array.from({ length: B + 1 }, (_, b) => b * n);
  const offsets = cuSeqlens ? Array.from(cuSeqlens) : every(T);
  const keyOffsets = cuSeqlens ? offsets : every(k.shape[1] as number);
  const attrs = { scale, causal, window, packed: cuSeqlens !== undefined, biasGradient, offsets, keyOffsets };
  const [o, lse, rest] = fused({ q, k, v, bias, keyMask }, attrs);
  rest.dispose(); // the backward pass has its own
  return { o, lse };
}

interface Attrs {
  scale: number;
  causal: boolean;
  /** 0: none. */
  window: number;
  packed: boolean;
  biasGradient: boolean;
  /** First query of every sequence, counted through the batch, and the end of the last. */
  offsets: number[];
  /** The same for the keys. */
  keyOffsets: number[];
}

const fused = fusedOp<'q' | 'k' | 'v' | 'bias' | 'keyMask', Attrs, 'bias' | 'keyMask'>({
  name: 'FlashAttention',
  inputs: ['q', 'k', 'v', 'bias', 'keyMask'],
  saveOutputs: true,
  forward(ctx, { q, k, v, bias, keyMask }, attrs) {
    const [B, T, H, K] = q.shape;
    const [, , G, V] = v.shape;
    const o = ctx.out([B, T, H, V]);
    const [lse, rest] = [ctx.out([B, T, H]), ctx.out([B, T, H])]; // rest: what rounding took from lse
    const bytes = ctx.kernels.flashAttentionFwdScratch(longest(attrs.keyOffsets), H / G, K, V);
    withOffsets(ctx, attrs, bytes, (offsets, keyOffsets, scratch) =>
      ctx.kernels.flashAttentionFwd(
        ...[q, k, v, o, lse, rest].map((x) => ctx.ptr(x)),
        ...[offsets, keyOffsets, ...settings(attrs, H, G, K, V)],
        ...[...biasArguments(ctx, bias, attrs), ctx.ptr(keyMask), scratch],
      ),
    );
    return [o, lse, rest];
  },
  backward(ctx, [dO, dLse], { q, k, v, bias, keyMask }, [o, lse, rest], attrs) {
    const [, , H, K] = q.shape;
    const [, , G, V] = v.shape;
    const [dq, dk, dv] = [q, k, v].map((x) => ctx.out(x.shape));
    const dBias = bias && attrs.biasGradient ? zeros(ctx, bias.shape) : undefined;
    const bytes = ctx.kernels.flashAttentionBwdScratch(longest(attrs.offsets), longest(attrs.keyOffsets), K, V);
    withOffsets(ctx, attrs, bytes, (offsets, keyOffsets, scratch) =>
      ctx.kernels.flashAttentionBwd(
        ...[q, k, v, o, lse, rest, dO, dLse, dq, dk, dv].map((x) => ctx.ptr(x)),
        ...[offsets, keyOffsets, ...settings(attrs, H, G, K, V)],
        ...[...biasArguments(ctx, bias, attrs), ctx.ptr(keyMask), ctx.ptr(dBias), scratch],
      ),
    );
    return { q: dq, k: dk, v: dv, bias: dBias };
  },
});

function settings(
  { offsets, causal, window, scale }: Attrs,
  ...sizes: [H: number, G: number, K: number, V: number]
): number[] {
  return [offsets.length - 1, ...sizes, causal ? 1 : 0, window, scale];
}

/** Where the bias is, bytes between its sequences, heads and queries (0 where they share it), and whether it has the rows of all. */
function biasArguments(ctx: WasmContext, bias: tf.TensorInfo | undefined, { packed }: Attrs): number[] {
  if (!bias) return [0, 0, 0, 0, 0];
  const [B, H, T, S] = bias.shape;
  return [ctx.ptr(bias), B > 1 ? 4 * H * T * S : 0, H > 1 ? 4 * T * S : 0, 4 * S, packed ? 1 : 0];
}

/** The kernel adds to it. */
function zeros(ctx: WasmContext, shape: number[]): tf.TensorInfo {
  const info = ctx.out(shape);
  ctx.backend.typedArrayFromHeap(info).fill(0);
  return info;
}

/** Tokens of the longest sequence. */
function longest(offsets: number[]): number {
  return Math.max(...offsets.slice(1).map((end, n) => end - offsets[n]));
}

/** Scratch for a kernel with both tables of offsets before it. */
function withOffsets(
  ctx: WasmContext,
  { offsets, keyOffsets }: Attrs,
  bytes: number,
  body: (offsets: number, keyOffsets: number, scratch: number) => void,
): void {
  const table = (offsets.length * 4 + 15) & ~15;
  ctx.scratch(2 * table + bytes, (at) => {
    ctx.writeInts(at, offsets);
    ctx.writeInts(at + table, keyOffsets);
    body(at, at + table, at + 2 * table);
  });
}
