/** Around the scan of S5 (Smith et al. 2022, https://arxiv.org/abs/2208.04933): complex weights as real matrices, and the feed-through. */
import * as tf from '@tensorflow/tfjs';
import { checkDtype, checkGiven, checkShapes } from '../check.js';
import { isFused, type PlainForm } from '../form.js';
import { rowsAndWidth } from '../rows.js';
import { fusedOp } from '../wasm/fusedOp.js';
import { gradientOf } from '../wasm/optional.js';
import type { WasmContext } from '../wasm/runtime.js';

interface Options {
  form?: PlainForm;
}

/**
 * The real matrix of u -> psi B u, whose outputs are pairs [re, im] in a row: rows 2p and 2p + 1 are Re and Im of psi_p b_p.
 * @param inputs b [P, H, 2]; psi [P, 2], 1 when absent
 * @returns [2P, H]
 */
export function modeInput({ b, psi }: { b: tf.Tensor; psi?: tf.Tensor }, { form = 'auto' }: Options = {}): tf.Tensor {
  checkGiven('modeInput', { b });
  checkDtype('modeInput', { b, psi });
  checkShapes('modeInput', { b: [b, [null, null, 2]], psi: [psi, [b.shape[0], 2]] });
  if (isFused('modeInput', form)) return fusedInput({ b, psi }, {})[0];
  return tf.tidy(() => {
    const [re, im] = tf.unstack(b, 2);
    if (!psi) return interleavedRows(re, im);
    const [pr, pi] = tf.split(psi, 2, 1);
    return interleavedRows(tf.sub(tf.mul(pr, re), tf.mul(pi, im)), tf.add(tf.mul(pr, im), tf.mul(pi, re)));
  });
}

const interleavedRows = (re: tf.Tensor, im: tf.Tensor): tf.Tensor => {
  const [P, H] = re.shape;
  return tf.reshape(tf.concat([re, im], 1), [2 * P, H]);
};

const fusedInput = fusedOp<'b' | 'psi', object, 'psi'>({
  name: 'ModeInput',
  inputs: ['b', 'psi'],
  forward(ctx, { b, psi }) {
    const [P, H] = b.shape;
    const w = ctx.out([2 * P, H]);
    ctx.kernels.modeInputFwd(ctx.ptr(b), ctx.ptr(psi), ctx.ptr(w), P, H);
    return [w];
  },
  backward(ctx, [dw], { b, psi }) {
    const [P, H] = b.shape;
    const db = ctx.out(b.shape);
    const dPsi = gradientOf(ctx, psi);
    ctx.kernels.modeInputBwd(...[b, psi, dw, db, dPsi].map((x) => ctx.ptr(x)), P, H);
    return { b: db, psi: dPsi };
  },
});

/**
 * The real matrix of x -> factor Re(C x) for pairs [re, im] in a row: columns factor Re C and -factor Im C.
 * @param inputs c [H, P, 2]
 * @param options factor: 2 where one mode stands for a conjugate pair
 * @returns [H, 2P]
 */
export function modeOutput(
  { c }: { c: tf.Tensor },
  { factor, form = 'auto' }: Options & { factor: number },
): tf.Tensor {
  checkGiven('modeOutput', { c });
  checkDtype('modeOutput', { c });
  checkShapes('modeOutput', { c: [c, [null, null, 2]] });
  const [H, P] = c.shape;
  return tf.tidy(() => {
    const w = isFused('modeOutput', form) ? fusedOutput({ c }, { factor })[0] : tf.mul(c, [factor, -factor]);
    return tf.reshape(w, [H, 2 * P]);
  });
}

const fusedOutput = fusedOp<'c', { factor: number }>({
  name: 'ModeOutput',
  inputs: ['c'],
  forward: (ctx, { c }, { factor }) => [flipped(ctx, c, factor)],
  backward: (ctx, [dw], _, _o, { factor }) => ({ c: flipped(ctx, dw, factor) }),
});

function flipped(ctx: WasmContext, c: tf.TensorInfo, factor: number): tf.TensorInfo {
  const w = ctx.out(c.shape);
  ctx.kernels.modeOutput(ctx.ptr(c), ctx.ptr(w), tf.util.sizeFromShape(c.shape) / 2, factor);
  return w;
}

/**
 * y = x * d, a factor for each channel.
 * @param inputs x [..., D]; d [D]
 * @returns [..., D]
 */
export function channelScale({ x, d }: { x: tf.Tensor; d: tf.Tensor }, { form = 'auto' }: Options = {}): tf.Tensor {
  checkGiven('channelScale', { x, d });
  checkDtype('channelScale', { x, d });
  checkShapes('channelScale', { d: [d, [x.shape[x.rank - 1]]] });
  return isFused('channelScale', form) ? fusedScale({ x, d }, {})[0] : tf.mul(x, d);
}

const fusedScale = fusedOp<'x' | 'd', object>({
  name: 'ChannelScale',
  inputs: ['x', 'd'],
  forward: (ctx, { x, d }) => [scaled(ctx, x, d)],
  backward: {
    x: (ctx, [dy], { d }) => scaled(ctx, dy, d),
    d(ctx, [dy], { x, d }) {
      const dd = ctx.out(d.shape);
      const [rows, n] = rowsAndWidth(x);
      const partBytes = (4 * n + 15) & ~15;
      ctx.scratch(partBytes + 8 * n, (part) => {
        new Uint8Array(ctx.memory.buffer, part, partBytes + 8 * n).fill(0);
        ctx.kernels.channelScaleSum(...[x, dy, dd].map((t) => ctx.ptr(t)), rows, n, part, part + partBytes);
      });
      return dd;
    },
  },
});

function scaled(ctx: WasmContext, x: tf.TensorInfo, d: tf.TensorInfo): tf.TensorInfo {
  const y = ctx.out(x.shape);
  ctx.kernels.channelScaleFwd(ctx.ptr(x), ctx.ptr(d), ctx.ptr(y), ...rowsAndWidth(x));
  return y;
}
