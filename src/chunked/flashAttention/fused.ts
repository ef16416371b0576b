/** Softmax attention by our WebAssembly kernels: one call for all heads and sequences, memory linear in the number of tokens. */
import { fusedOp } from '../wasm/fusedOp.js';
import type { WasmContext } from '../wasm/runtime.js';
import type { AttentionMask, FlashAttentionInputs, FlashAttentionOutput } from './index.js';

/** Same contract as `flashAttention`, arguments already checked; needs the wasm backend. Differentiable once. */
export function fusedFlashAttention(
  inputs: FlashAttentionInputs,
  scale: number,
  { causal = true, window = 0, cuSeqlens }: AttentionMask,
): FlashAttentionOutput {
  const [B, T] = inputs.q.shape;
  const every = (n: number) => Array.from({ length: B + 1 }, (_, b) => b * n);
  const offsets = cuSeqlens ? Array.from(cuSeqlens) : every(T);
  const keyOffsets = cuSeqlens ? offsets : every(inputs.k.shape[1] as number);
  const [o, lse, rest] = fused({ ...inputs }, { scale, causal, window, offsets, keyOffsets });
  rest.dispose(); // the backward pass has its own
  return { o, lse };
}

interface Attrs {
  scale: number;
  causal: boolean;
  /** 0: none. */
  window: number;
  /** First query of every sequence, counted through the batch, and the end of the last. */
  offsets: number[];
  /** The same for the keys. */
  keyOffsets: number[];
}

const fused = fusedOp<'q' | 'k' | 'v', Attrs>({
  name: 'FlashAttention',
  inputs: ['q', 'k', 'v'],
  saveOutputs: true,
  forward(ctx, { q, k, v }, attrs) {
    const [B, T, H, K] = q.shape;
    const [, , G, V] = v.shape;
    const o = ctx.out([B, T, H, V]);
    const [lse, rest] = [ctx.out([B, T, H]), ctx.out([B, T, H])]; // rest: what rounding took from lse
    const bytes = ctx.kernels.flashAttentionFwdScratch(longest(attrs.keyOffsets), H / G, K, V);
    withOffsets(ctx, attrs, bytes, (offsets, keyOffsets, scratch) =>
      ctx.kernels.flashAttentionFwd(
        ...[q, k, v, o, lse, rest].map((x) => ctx.ptr(x)),
        ...[offsets, keyOffsets, attrs.offsets.length - 1, H, G, K, V, attrs.causal ? 1 : 0, attrs.window, attrs.scale],
        scratch,
      ),
    );
    return [o, lse, rest];
  },
  backward(ctx, [dO, dLse], { q, k, v }, [o, lse, rest], attrs) {
    const [, , H, K] = q.shape;
    const [, , G, V] = v.shape;
    const [dq, dk, dv] = [q, k, v].map((x) => ctx.out(x.shape));
    const bytes = ctx.kernels.flashAttentionBwdScratch(longest(attrs.offsets), longest(attrs.keyOffsets), K, V);
    withOffsets(ctx, attrs, bytes, (offsets, keyOffsets, scratch) =>
      ctx.kernels.flashAttentionBwd(
        ...[q, k, v, o, lse, rest, dO, dLse, dq, dk, dv].map((x) => ctx.ptr(x)),
        ...[offsets, keyOffsets, attrs.offsets.length - 1, H, G, K, V, attrs.causal ? 1 : 0, attrs.window, attrs.scale],
        scratch,
      ),
    );
    return { q: dq, k: dk, v: dv };
  },
});

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
