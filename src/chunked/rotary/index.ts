/** Rotary position embedding (Su et al. 2021, https://arxiv.org/abs/2104.09864, eq. 15) in the half-split layout. */
import * as tf from '@tensorflow/tfjs';
import { checkCuSeqlens, checkDtype, checkShapes } from '../check.js';
import { isFused, type PlainForm } from '../form.js';
import { fusedOp } from '../wasm/fusedOp.js';
import type { WasmContext } from '../wasm/runtime.js';

export interface RotaryEmbeddingOptions {
  /** Channel i turns by base^(-2i / D) per position; default 10000. */
  base?: number;
  /** Position of the first token, one number or one per sequence (batch row, or packed document); default 0. */
  offset?: number | Int32Array;
  /** Offsets [0, n1, n1 + n2, ..., T] of packed documents, each with its own positions; needs B = 1. */
  cuSeqlens?: Int32Array;
  form?: PlainForm;
}

/**
 * Turns channel i of the first half with channel i of the second half (as Llama and GPT-NeoX pair them) by the angle
 * position * base^(-2i / D). Angles are taken in float64, so they are right at positions of a million and more.
 * @param inputs x [B, T, H, D], D even, float32
 * @returns same shape as x
 * @throws RangeError or TypeError for wrong shapes, dtypes, offsets or options
 */
export function rotaryEmbedding(
  { x }: { x: tf.Tensor },
  { base = 10000, offset = 0, cuSeqlens, form = 'auto' }: RotaryEmbeddingOptions = {},
): tf.Tensor {
  checkDtype('rotaryEmbedding', { x });
  checkShapes('rotaryEmbedding', { x: [x, [null, null, null, null]] });
  const [B, T, , D] = x.shape as [number, number, number, number];
  if (D % 2 !== 0) throw new RangeError(`rotaryEmbedding: the last axis of x must be even, got ${D}`);
  if (!(base > 0 && base < Number.POSITIVE_INFINITY))
    throw new RangeError(`rotaryEmbedding: base must be a positive number, got ${base}`);
  checkCuSeqlens('rotaryEmbedding', cuSeqlens, B, T);
  const runs = runsOf(B, T, offset, cuSeqlens);
  const speeds = Float64Array.from({ length: D / 2 }, (_, i) => base ** ((-2 * i) / D));
  if (isFused('rotaryEmbedding', form)) return fused({ x }, { runs, speeds })[0];
  return tf.tidy(() => rotate(x, runs, speeds));
}

/** Consecutive tokens with consecutive positions: `token` is the first one, counted through the batch. */
interface Run {
  token: number;
  length: number;
  position: number;
}

function runsOf(B: number, T: number, offset: number | Int32Array, cuSeqlens?: Int32Array): Run[] {
  const starts = cuSeqlens ?? Int32Array.from({ length: B + 1 }, (_, b) => b * T);
  const sequences = starts.length - 1;
  if (typeof offset === 'number' ? !Number.isSafeInteger(offset) : offset.length !== sequences)
    throw new RangeError(
      `rotaryEmbedding: offset must be an integer or an Int32Array of ${sequences}, got ${typeof offset === 'number' ? offset : `${offset.length} of them`}`,
    );
  return Array.from({ length: sequences }, (_, n) => ({
    token: starts[n],
    length: starts[n + 1] - starts[n],
    position: typeof offset === 'number' ? offset : offset[n],
  }));
}

function rotate(x: tf.Tensor, runs: Run[], speeds: Float64Array): tf.Tensor {
  const [B, T, H, D] = x.shape as [number, number, number, number];
  const angles = runs.flatMap(({ length, position }) =>
    Array.from({ length }, (_, t) => Array.from(speeds, (speed) => (position + t) * speed)),
  );
  const table = (f: (angle: number) => number) => tf.tensor(angles.flat().map(f), [B, T, 1, D / 2], 'float32');
  const [cos, sin] = [table(Math.cos), table(Math.sin)];
  const [a, b] = [tf.slice(x, 0, [B, T, H, D / 2]), tf.slice(x, [0, 0, 0, D / 2], [B, T, H, D / 2])];
  const first = tf.sub(tf.mul(a, cos), tf.mul(b, sin));
  const second = tf.add(tf.mul(b, cos), tf.mul(a, sin));
  return tf.concat([first, second], 3);
}

interface Attrs {
  runs: Run[];
  speeds: Float64Array;
}

const fused = fusedOp<'x', Attrs>({
  name: 'RotaryEmbedding',
  inputs: ['x'],
  forward: (ctx, { x }, attrs) => [turn(ctx, x, attrs, 1)],
  backward: (ctx, [dy], _, __, attrs) => ({ x: turn(ctx, dy, attrs, -1) }), // the transpose of a rotation turns back
});

function turn(ctx: WasmContext, x: tf.TensorInfo, { runs, speeds }: Attrs, sign: 1 | -1): tf.TensorInfo {
  const y = ctx.out(x.shape);
  const [H, D] = x.shape.slice(2);
  const [xAt, yAt] = [ctx.ptr(x), ctx.ptr(y)];
  ctx.scratch(20 * D, (now) => {
    const [step, row] = [now + 8 * D, now + 16 * D];
    writeAngles(ctx, step, speeds);
    for (const { token, length, position } of runs) {
      writeAngles(
        ctx,
        now,
        speeds.map((speed) => position * speed),
      );
      const at = 4 * token * H * D;
      ctx.kernels.rotaryRotate(xAt + at, yAt + at, length, H, D, now, step, row, sign);
    }
  });
  return y;
}

/** Cosines, then sines, as doubles. */
function writeAngles(ctx: WasmContext, offset: number, angles: Float64Array): void {
  const table = new Float64Array(ctx.memory.buffer, offset, 2 * angles.length);
  table.set(angles.map(Math.cos));
  table.set(angles.map(Math.sin), angles.length);
}
