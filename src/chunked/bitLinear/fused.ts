/** BitLinear on the wasm backend: shapes and memory. The rounding is in kernel.as.ts; the sums are float32 products of whole numbers. */
import * as tf from '@tensorflow/tfjs';
import { multiply } from '../product/index.js';
import { withRowSums } from '../rmsNorm/rootNorm.js';
import { rowsAndWidth } from '../rows.js';
import { fusedOp } from '../wasm/fusedOp.js';
import { gradientOf } from '../wasm/optional.js';
import type { WasmContext } from '../wasm/runtime.js';
import type { BitLinearInputs } from './index.js';
import type { QuantisedActivations, QuantisedWeight } from './quantise.js';

interface Attrs {
  eps: number;
  /** Activations are rounded. */
  rounds: boolean;
}

export function fusedBitLinear(inputs: BitLinearInputs, attrs: Attrs): tf.Tensor {
  return fused({ ...inputs }, attrs)[0];
}

const fused = fusedOp<'x' | 'weight' | 'norm', Attrs, 'norm'>({
  name: 'BitLinear',
  inputs: ['x', 'weight', 'norm'],
  forward(ctx, { x, weight, norm }, { eps, rounds }) {
    const [rows, I] = rowsAndWidth(x);
    const O = weight.shape[0];
    const out = ctx.out([...x.shape.slice(0, -1), O]);
    withTernary(ctx, weight, (ternary, scale) =>
      ctx.scratch(4 * rows * (I + 1), (values) => {
        const scales = values + 4 * rows * I;
        ctx.kernels.bitQuantiseRows(ctx.ptr(x), ctx.ptr(norm), values, scales, rows, I, eps, Number(rounds), 0);
        multiply(ctx, values, ternary, 0, ctx.ptr(out), { M: rows, N: O, K: I, transposeB: true });
        ctx.kernels.bitScaleRows(ctx.ptr(out), scales, rows, O, scale);
      }),
    );
    return [out];
  },
  backward(ctx, [dOut], { x, weight, norm }, _, { eps, rounds }) {
    const [rows, I] = rowsAndWidth(x);
    const O = weight.shape[0];
    const [dx, dWeight, dNorm] = [ctx.out(x.shape), ctx.out(weight.shape), gradientOf(ctx, norm)];
    ctx.scratch(4 * rows * (I + 1), (values) => {
      const scales = values + 4 * rows * I;
      ctx.kernels.bitQuantiseRows(ctx.ptr(x), ctx.ptr(norm), values, scales, rows, I, eps, Number(rounds), 1);
      multiply(ctx, ctx.ptr(dOut), values, 0, ctx.ptr(dWeight), { M: O, N: I, K: rows, transposeA: true });
    });
    withTernary(ctx, weight, (ternary, scale) => {
      multiply(ctx, ctx.ptr(dOut), ternary, 0, ctx.ptr(dx), { M: rows, N: I, K: O });
      ctx.kernels.bitDivide(ctx.ptr(dx), rows * I, scale);
    });
    const [xAt, normAt, dxAt] = [x, norm, dx].map((t) => ctx.ptr(t)); // dx holds the gradient on y, cell by cell replaced
    withRowSums(ctx, I, (part, total) =>
      ctx.kernels.rmsNormBwd(xAt, normAt, dxAt, dxAt, ctx.ptr(dNorm), rows, I, 1 / I, eps, part, total),
    );
    return { x: dx, weight: dWeight, norm: dNorm };
  },
});

/** The ternary weight as floats in scratch memory, with its scale. */
function withTernary(ctx: WasmContext, weight: tf.TensorInfo, body: (ternary: number, scale: number) => void): void {
  const size = tf.util.sizeFromShape(weight.shape);
  ctx.scratch(4 * size, (ternary) => body(ternary, ctx.kernels.bitQuantiseWeight(ctx.ptr(weight), ternary, size)));
}

export function fusedActivations(x: tf.Tensor, norm: tf.Tensor | undefined, eps: number): QuantisedActivations {
  const [values, scale] = activations({ x, norm }, { eps });
  return { values, scale };
}

const activations = fusedOp<'x' | 'norm', { eps: number }, 'norm'>({
  name: 'BitActivations',
  inputs: ['x', 'norm'],
  forward(ctx, { x, norm }, { eps }) {
    const [rows, I] = rowsAndWidth(x);
    const [values, scale] = [ctx.out(x.shape), ctx.out([...x.shape.slice(0, -1), 1])];
    const pointers = [x, norm, values, scale].map((t) => ctx.ptr(t));
    ctx.kernels.bitQuantiseRows(...pointers, rows, I, eps, 1, 0);
    return [values, scale];
  },
});

export function fusedWeight(weight: tf.Tensor): QuantisedWeight {
  const [values, scale] = ternaryWeight({ weight }, {});
  return { values, scale };
}

const ternaryWeight = fusedOp<'weight', object>({
  name: 'BitWeight',
  inputs: ['weight'],
  forward(ctx, { weight }) {
    const [values, scale] = [ctx.out(weight.shape), ctx.out([])];
    const of = ctx.kernels.bitQuantiseWeight(ctx.ptr(weight), ctx.ptr(values), tf.util.sizeFromShape(weight.shape));
    new Float32Array(ctx.memory.buffer, ctx.ptr(scale), 1)[0] = of;
    return [values, scale];
  },
});

export function fusedRoundedActivations(x: tf.Tensor, norm: tf.Tensor | undefined, eps: number): tf.Tensor {
  return roundedActivations({ x, norm }, { eps })[0];
}

const roundedActivations = fusedOp<'x' | 'norm', { eps: number }, 'norm'>({
  name: 'BitRoundedActivations',
  inputs: ['x', 'norm'],
  forward(ctx, { x, norm }, { eps }) {
    const [rows, I] = rowsAndWidth(x);
    const y = ctx.out(x.shape);
    const pointers = [x, norm, y].map((t) => ctx.ptr(t));
    ctx.scratch(4 * rows, (scales) => ctx.kernels.bitQuantiseRows(...pointers, scales, rows, I, eps, 1, 1));
    return [y];
  },
  backward(ctx, [dy], { x, norm }, _, { eps }) {
    const [rows, I] = rowsAndWidth(x);
    const [dx, dNorm] = [ctx.out(x.shape), gradientOf(ctx, norm)];
    const pointers = [x, norm, dy, dx, dNorm].map((t) => ctx.ptr(t));
    withRowSums(ctx, I, (part, total) => ctx.kernels.rmsNormBwd(...pointers, rows, I, 1 / I, eps, part, total));
    return { x: dx, norm: dNorm };
  },
});

export function fusedRoundedWeight(weight: tf.Tensor): tf.Tensor {
  const op = tf.customGrad((value) => {
    const [rounded] = roundedWeight({ weight: value as tf.Tensor }, {});
    return { value: rounded, gradFunc: (dy: tf.Tensor) => tf.clone(dy) };
  });
  return op(weight);
}

const roundedWeight = fusedOp<'weight', object>({
  name: 'BitRoundedWeight',
  inputs: ['weight'],
  forward(ctx, { weight }) {
    const [out, size] = [ctx.out(weight.shape), tf.util.sizeFromShape(weight.shape)];
    ctx.kernels.bitDivide(ctx.ptr(out), size, ctx.kernels.bitQuantiseWeight(ctx.ptr(weight), ctx.ptr(out), size));
    return [out];
  },
});

export function fusedPackedBitLinear(
  inputs: { x: tf.Tensor; norm?: tf.Tensor; data: tf.Tensor; scale: tf.Tensor },
  eps: number,
): tf.Tensor {
  return packedProduct(inputs, { eps })[0];
}

const packedProduct = fusedOp<'x' | 'norm' | 'data' | 'scale', { eps: number }, 'norm'>({
  name: 'BitPackedLinear',
  inputs: ['x', 'norm', 'data', 'scale'],
  forward(ctx, { x, norm, data, scale }, { eps }) {
    const [rows, I] = rowsAndWidth(x);
    const [O, words] = data.shape;
    const [out, padded] = [ctx.out([...x.shape.slice(0, -1), O]), 16 * words];
    const ofWeight = new Float32Array(ctx.memory.buffer, ctx.ptr(scale), 1)[0];
    ctx.scratch(4 * rows * (I + 2) + rows * padded, (bytes) => {
      const values = bytes + rows * padded;
      const [scales, sums] = [values + 4 * rows * I, values + 4 * rows * (I + 1)];
      ctx.kernels.bitQuantiseRows(ctx.ptr(x), ctx.ptr(norm), values, scales, rows, I, eps, 1, 0);
      ctx.kernels.bitInterleave(values, bytes, sums, rows, I, padded);
      const [weights, to] = [ctx.ptr(data), ctx.ptr(out)];
      ctx.kernels.bitPackedProduct(bytes, sums, scales, weights, to, rows, O, padded, ofWeight);
    });
    return [out];
  },
});
