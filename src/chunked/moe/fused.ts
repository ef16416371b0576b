/** The mixture on wasm: tokens sorted by expert, so that each chosen expert is one matrix product of its tokens. */
import type * as tf from '@tensorflow/tfjs';
import { multiplyByKernel, type Sum } from '../product/index.js';
import { fusedOp, type Infos } from '../wasm/fusedOp.js';
import type { WasmContext } from '../wasm/runtime.js';
import type { MixtureOfExpertsInputs } from './index.js';
import type { Routing } from './routing.js';

type Input = keyof MixtureOfExpertsInputs;

/** x [N, D], logits [N, E] -> [N, D]; arguments already checked; needs the wasm backend. Differentiable once. */
export function fusedMixtureOfExperts(inputs: MixtureOfExpertsInputs, routing: Required<Routing>): tf.Tensor {
  const [y, ...rest] = fused({ ...inputs }, routing);
  for (const t of rest) t.dispose(); // the backward pass has its own
  return y;
}

/** Outputs: y, the chosen experts [N, k] and their weights [N, k], and gate and up of every pair in the order of experts [P, I]. */
const fused = fusedOp<Input, Required<Routing>, 'bias'>({
  name: 'MixtureOfExperts',
  inputs: ['x', 'logits', 'bias', 'w1', 'w2', 'w3'],
  saveOutputs: true,
  forward(ctx, { x, logits, bias, w1, w2, w3 }, routing) {
    const { N, D, E, I, k, P } = sizesOf(x, w1, routing);
    const [y, chosen, weights] = [ctx.out([N, D]), ctx.out([N, k], 'int32'), ctx.out([N, k])];
    const [gate, up] = [ctx.out([P, I]), ctx.out([P, I])];
    route(ctx, { logits, bias, chosen, weights }, routing);
    withRows(ctx, chosen, E, 2 * P * D + P * I, ({ order, place, experts, scratch: xs }) => {
      const [rows, h] = [xs + 4 * P * D, xs + 8 * P * D];
      ctx.kernels.moeGather(ctx.ptr(x), order, P, k, D, xs);
      for (const range of experts)
        for (const [w, to] of [
          [w1, gate],
          [w3, up],
        ] as const)
          product(ctx, at(xs, range, D), matrix(ctx, w, range), at(ctx.ptr(to), range, I), {
            ...{ M: range.rows, N: I, K: D, transposeB: true },
          });
      ctx.kernels.moeActivate(ctx.ptr(gate), ctx.ptr(up), ctx.ptr(weights), order, P, I, h);
      for (const range of experts)
        product(ctx, at(h, range, I), matrix(ctx, w2, range), at(rows, range, D), {
          ...{ M: range.rows, N: D, K: I, transposeB: true },
        });
      ctx.kernels.moeSum(rows, place, N, k, D, ctx.ptr(y));
    });
    return [y, chosen, weights, gate, up];
  },
  backward(ctx, [dy], inputs, [, chosen, weights, gate, up], routing) {
    const { x, logits, bias, w1, w2, w3 } = inputs as Infos<Input, 'bias'>;
    const { N, D, E, I, k, P } = sizesOf(x, w1, routing);
    const [dx, dLogits, dW1, dW2, dW3] = [x, logits, w1, w2, w3].map((t) => ctx.out(t.shape));
    let load: tf.TensorInfo | undefined;
    withRows(ctx, chosen, E, P * (2 * D + 3 * I + 1), ({ order, place, experts, scratch: xs }) => {
      const dys = xs + 4 * P * D;
      const [dh, dGate, h] = [0, 1, 2].map((i) => dys + 4 * P * (D + i * I));
      const dWeights = h + 4 * P * I;
      load = bias && loadOf(ctx, experts, P, E);
      ctx.kernels.moeGather(ctx.ptr(x), order, P, k, D, xs);
      ctx.kernels.moeGather(ctx.ptr(dy), order, P, k, D, dys);
      for (const range of experts)
        product(ctx, at(dys, range, D), matrix(ctx, w2, range), at(dh, range, I), { M: range.rows, N: I, K: D });
      const read = [gate, up, weights].map((t) => ctx.ptr(t));
      ctx.kernels.moeActivateBwd(...read, order, P, I, dh, dGate, h, dWeights);
      const dUp = dh;
      weightGradients(ctx, dW1, experts, [dGate, I], [xs, D]);
      weightGradients(ctx, dW3, experts, [dUp, I], [xs, D]);
      weightGradients(ctx, dW2, experts, [dys, D], [h, I]);
      const dxs = dys; // read for the last time above
      for (const range of experts) {
        const size = { M: range.rows, N: D, K: I };
        product(ctx, at(dGate, range, I), matrix(ctx, w1, range), at(dxs, range, D), size);
        product(ctx, at(dUp, range, I), matrix(ctx, w3, range), at(dxs, range, D), { ...size, add: true });
      }
      ctx.kernels.moeSum(dxs, place, N, k, D, ctx.ptr(dx));
      const { renormalize, routedScalingFactor: factor } = routing;
      const pointers = [ctx.ptr(logits), ctx.ptr(chosen), dWeights, ctx.ptr(dLogits)];
      ctx.kernels.moeRouteBwd(...pointers, N, E, k, Number(renormalize), factor);
    });
    return { x: dx, logits: dLogits, bias: load, w1: dW1, w2: dW2, w3: dW3 };
  },
});

function sizesOf(x: tf.TensorInfo, w1: tf.TensorInfo, { numExpertsPerToken: k }: Required<Routing>) {
  const [N, D] = x.shape;
  const [E, I] = w1.shape;
  return { N, D, E, I, k, P: N * k };
}

function route(
  ctx: WasmContext,
  tensors: { logits: tf.TensorInfo; bias?: tf.TensorInfo; chosen: tf.TensorInfo; weights: tf.TensorInfo },
  { numExpertsPerToken: k, renormalize, routedScalingFactor, numExpertGroup, topkGroup }: Required<Routing>,
): void {
  const [N, E] = tensors.logits.shape;
  const pointers = [tensors.logits, tensors.bias, tensors.chosen, tensors.weights].map((t) => ctx.ptr(t));
  const options = [numExpertGroup, topkGroup, Number(renormalize), routedScalingFactor];
  ctx.scratch(4 * ctx.kernels.moeRouteScratch(E, k, numExpertGroup), (scratch) =>
    ctx.kernels.moeRoute(...pointers, N, E, k, ...options, scratch),
  );
}

/** An expert that was chosen, and its rows. */
interface Range {
  expert: number;
  first: number;
  rows: number;
}

interface Rows {
  /** Byte offsets of the kernel's tables. */
  order: number;
  place: number;
  /** Chosen experts only. */
  experts: Range[];
  /** As many floats as were asked for. */
  scratch: number;
}

/** Sorts the pairs by expert. */
function withRows(
  ctx: WasmContext,
  chosen: tf.TensorInfo,
  E: number,
  floats: number,
  body: (rows: Rows) => void,
): void {
  const P = chosen.shape[0] * chosen.shape[1];
  const tables = (4 * (E + 1 + 2 * P) + 15) & ~15;
  ctx.scratch(tables + 4 * floats, (ends) => {
    const order = ends + 4 * (E + 1);
    const place = order + 4 * P;
    ctx.kernels.moeSort(ctx.ptr(chosen), P, E, ends, order, place);
    const until = ctx.readInts(ends, E);
    const ranges = Array.from(until, (end, expert): Range => {
      const first = expert ? until[expert - 1] : 0;
      return { expert, first, rows: end - first };
    });
    body({ order, place, experts: ranges.filter(({ rows }) => rows > 0), scratch: ends + tables });
  });
}

/** Where the rows of an expert begin in an array with rows of `width`. */
const at = (start: number, { first }: Range, width: number) => start + 4 * first * width;

/** Where the matrix of an expert begins. */
const matrix = (ctx: WasmContext, w: tf.TensorInfo, { expert }: Range) =>
  ctx.ptr(w) + 4 * expert * w.shape[1] * w.shape[2];

/**
 * By our kernel even where BLAS is at hand: BLAS sums in an order that depends on the number of rows, and then a token's last bits would
 * depend on which experts later tokens choose.
 */
const product = (ctx: WasmContext, a: number, b: number, c: number, size: Sum) =>
  multiplyByKernel(ctx, [[a, b, c]], 0, size);

/** dW_e = a^T b over the rows of every expert, rows of the given widths; 0 where nothing was chosen. */
function weightGradients(
  ctx: WasmContext,
  dW: tf.TensorInfo,
  experts: Range[],
  [a, M]: [start: number, width: number],
  [b, N]: [start: number, width: number],
): void {
  const chosen = new Map(experts.map((range) => [range.expert, range]));
  for (let expert = 0; expert < dW.shape[0]; expert++) {
    const range = chosen.get(expert);
    const to = ctx.ptr(dW) + 4 * expert * M * N;
    if (range) product(ctx, at(a, range, M), at(b, range, N), to, { M, N, K: range.rows, transposeA: true });
    else new Float32Array(ctx.memory.buffer, to, M * N).fill(0);
  }
}

/** E * (tokens of each expert) - all choices. */
function loadOf(ctx: WasmContext, experts: Range[], P: number, E: number): tf.TensorInfo {
  const load = ctx.out([E]);
  const values = new Float32Array(ctx.memory.buffer, ctx.ptr(load), E).fill(-P);
  for (const { expert, rows } of experts) values[expert] += E * rows;
  return load;
}
