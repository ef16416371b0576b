/** Softmax attention by our WebAssembly kernels: one call for all heads and sequences, memory linear in the number of tokens. */
import type * as tf from '@tensorflow/tfjs';
import { fusedOp, type Infos } from '../wasm/fusedOp.js';
import type { WasmContext } from '../wasm/runtime.js';
import { inBlocks } from './blocks.js';
import type { FlashAttentionOutput } from './index.js';
import type { AttentionInputs, AttentionSettings, FactorName } from './terms.js';

/** Same contract as `flashAttention` with factors and a band (`AttentionInputs`), arguments already checked; needs the wasm backend. Differentiable once. */
export function fusedFlashAttention(
  inputs: AttentionInputs,
  { scale, causal, window = 0, cuSeqlens, biasGradient, factorGradient }: AttentionSettings,
): FlashAttentionOutput {
  const { q, k } = inputs;
  const [B, T] = q.shape;
  const every = (n: number) => Array.from({ length: B + 1 }, (_, b) => b * n);
  const offsets = cuSeqlens ? Array.from(cuSeqlens) : every(T);
  const keyOffsets = cuSeqlens ? offsets : every(k.shape[1] as number);
  const packed = cuSeqlens !== undefined;
  const attrs = { scale, causal, window, packed, biasGradient, factorGradient, offsets, keyOffsets };
  const [o, lse, rest] = fused({ ...inputs }, attrs);
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
  factorGradient: readonly FactorName[];
  /** First query of every sequence, counted through the batch, and the end of the last. */
  offsets: number[];
  /** The same for the keys. */
  keyOffsets: number[];
}

/** Inputs that are added to the scores, and the mask. */
const TERMS = ['bias', 'phiQ', 'phiK', 'band', 'keyMask'] as const;
type Term = (typeof TERMS)[number];
type Given = Infos<'q' | 'k' | 'v' | Term, Term>;
type TermGradients = Partial<Record<Term, tf.TensorInfo>>;

const fused = fusedOp<'q' | 'k' | 'v' | Term, Attrs, Term>({
  name: 'FlashAttention',
  inputs: ['q', 'k', 'v', ...TERMS],
  saveOutputs: true,
  forward(ctx, inputs, attrs) {
    const { q, k, v, phiQ } = inputs;
    const [B, T, H, K] = q.shape;
    const [, , G, V] = v.shape;
    const o = ctx.out([B, T, H, V]);
    const [lse, rest] = [ctx.out([B, T, H]), ctx.out([B, T, H])]; // rest: what rounding took from lse
    const blocks = inBlocks(ctx, seenKeys(attrs), K + V) ? 1 : 0;
    const bytes = ctx.kernels.flashAttentionFwdScratch(longest(attrs.keyOffsets), H / G, K, V, rankOf(phiQ), blocks);
    const terms = termTable(ctx, inputs, {}, attrs);
    withTables(ctx, [attrs.offsets, attrs.keyOffsets, terms], bytes, ([offsets, keyOffsets, at], scratch) =>
      ctx.kernels.flashAttentionFwd(
        ...[q, k, v, o, lse, rest].map((x) => ctx.ptr(x)),
        ...[offsets, keyOffsets, ...settings(attrs, H, G, K, V), blocks, at, scratch],
      ),
    );
    return [o, lse, rest];
  },
  backward(ctx, [dO, dLse], inputs, [o, lse, rest], attrs) {
    const { q, k, v, phiQ } = inputs;
    const [, , H, K] = q.shape;
    const [, , G, V] = v.shape;
    const [dq, dk, dv] = [q, k, v].map((x) => ctx.out(x.shape));
    const gradients = termGradients(ctx, inputs, attrs);
    const [T, S] = [longest(attrs.offsets), longest(attrs.keyOffsets)];
    const blocks = inBlocks(ctx, seenKeys(attrs), K + V) ? 1 : 0;
    const bytes = ctx.kernels.flashAttentionBwdScratch(T, S, K, V, rankOf(phiQ), blocks);
    const terms = termTable(ctx, inputs, gradients, attrs);
    withTables(ctx, [attrs.offsets, attrs.keyOffsets, terms], bytes, ([offsets, keyOffsets, at], scratch) =>
      ctx.kernels.flashAttentionBwd(
        ...[q, k, v, o, lse, rest, dO, dLse, dq, dk, dv].map((x) => ctx.ptr(x)),
        ...[offsets, keyOffsets, ...settings(attrs, H, G, K, V), blocks, at, scratch],
      ),
    );
    return { q: dq, k: dk, v: dv, ...gradients };
  },
});

function settings(
  { offsets, causal, window, scale }: Attrs,
  ...sizes: [H: number, G: number, K: number, V: number]
): number[] {
  return [offsets.length - 1, ...sizes, causal ? 1 : 0, window, scale];
}

const rankOf = (phi: tf.TensorInfo | undefined) => phi?.shape[3] ?? 0;

/** Gradients that the kernel adds to. */
function termGradients(
  ctx: WasmContext,
  { bias, phiQ, phiK, band }: Given,
  { biasGradient, factorGradient }: Attrs,
): TermGradients {
  const zeros = (x: tf.TensorInfo | undefined, wanted: boolean) => (x && wanted ? zeroOutput(ctx, x.shape) : undefined);
  return {
    bias: zeros(bias, biasGradient),
    phiQ: zeros(phiQ, factorGradient.includes('phiQ')),
    phiK: zeros(phiK, factorGradient.includes('phiK')),
    band: zeros(band, factorGradient.includes('band')),
  };
}

function zeroOutput(ctx: WasmContext, shape: number[]): tf.TensorInfo {
  const info = ctx.out(shape);
  ctx.backend.typedArrayFromHeap(info).fill(0);
  return info;
}

/** The fields of the class `Terms` (terms.as.ts) in their order; those after `bandRow` are the kernel's own. */
function termTable(
  ctx: WasmContext,
  { bias, phiQ, phiK, band, keyMask }: Given,
  gradients: TermGradients,
  { packed }: Attrs,
): number[] {
  const width = band ? (band.shape[3] + 1) / 2 : 0;
  const each = (x: tf.TensorInfo | undefined, gradient: tf.TensorInfo | undefined, strides: number[]) =>
    x ? [ctx.ptr(x), ctx.ptr(gradient), ...strides] : [0, 0, 0, 0, 0];
  return [
    ...[packed ? 1 : 0, ctx.ptr(keyMask), rankOf(phiQ), width],
    ...each(bias, gradients.bias, bias ? biasStrides(bias.shape) : []),
    ...each(phiQ, gradients.phiQ, phiQ ? tokenStrides(phiQ.shape) : []),
    ...each(phiK, gradients.phiK, phiK ? tokenStrides(phiK.shape) : []),
    ...each(band, gradients.band, band ? tokenStrides(band.shape) : []),
    ...Array<number>(OWN_FIELDS).fill(0),
  ];
}

const OWN_FIELDS = 9;

/** Bytes from sequence to sequence, head to head and query to query of [B, H, T, S]. */
const biasStrides = ([B, H, T, S]: number[]) => [B > 1 ? 4 * H * T * S : 0, H > 1 ? 4 * T * S : 0, 4 * S];

/** The same of [B, T, H, n]. */
const tokenStrides = ([B, T, H, n]: number[]) => [B > 1 ? 4 * T * H * n : 0, H > 1 ? 4 * n : 0, T > 1 ? 4 * H * n : 0];

/** Keys that the queries of the longest sequence see, the past before it aside. */
const seenKeys = ({ offsets, window }: Attrs) => Math.min(longest(offsets), window || Number.POSITIVE_INFINITY);

/** Tokens of the longest sequence. */
function longest(offsets: number[]): number {
  return Math.max(...offsets.slice(1).map((end, n) => end - offsets[n]));
}

/** Scratch for a kernel with tables of integers before it. */
function withTables(
  ctx: WasmContext,
  tables: number[][],
  bytes: number,
  body: (tables: number[], scratch: number) => void,
): void {
  const sizes = tables.map(({ length }) => (length * 4 + 15) & ~15);
  const starts = sizes.map((_, i) => sizes.slice(0, i).reduce((a, b) => a + b, 0));
  const all = sizes.reduce((a, b) => a + b, 0);
  ctx.scratch(all + bytes, (at) => {
    for (const [i, table] of tables.entries()) ctx.writeInts(at + starts[i], table);
    body(
      starts.map((start) => at + start),
      at + all,
    );
  });
}
