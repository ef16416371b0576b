/** Elementwise ops of two tensors of one shape, given apart or as the halves of one: what `glu` and `swiGlu` share. */
import * as tf from '@tensorflow/tfjs';
import { checkDtype, checkGiven, checkShapes } from './check.js';
import { isFused, type PlainForm } from './form.js';
import { lastAxis, rowsAndWidth } from './rows.js';
import { fusedOp } from './wasm/fusedOp.js';

interface GatedUnitSpec<First extends string, Second extends string> {
  /** Of the op in errors, and before `Fwd` and `Bwd` of its kernels, which take both inputs, a stride, and dense outputs. */
  name: string;
  first: First;
  second: Second;
  /** The op in TensorFlow.js ops. */
  plain(first: tf.Tensor, second: tf.Tensor): tf.Tensor;
}

type Inputs<First extends string, Second extends string> = Record<First | Second, tf.Tensor> | { x: tf.Tensor };

export function gatedUnit<First extends string, Second extends string>({
  name,
  first,
  second,
  plain,
}: GatedUnitSpec<First, Second>): (inputs: Inputs<First, Second>, form: PlainForm) => tf.Tensor {
  const kernelName = `${name[0].toUpperCase()}${name.slice(1)}`;

  const fusedPair = fusedOp<'a' | 'b', object>({
    name: kernelName,
    inputs: ['a', 'b'],
    forward(ctx, { a, b }) {
      const y = ctx.out(a.shape);
      ctx.kernels[`${name}Fwd`](ctx.ptr(a), ctx.ptr(b), ctx.ptr(y), 1, size(a), 0);
      return [y];
    },
    backward(ctx, [dy], { a, b }) {
      const [da, db] = [ctx.out(a.shape), ctx.out(b.shape)];
      const pointers = [a, b, dy, da, db].map((t) => ctx.ptr(t));
      ctx.kernels[`${name}Bwd`](...pointers, 1, size(a), 0);
      return { a: da, b: db };
    },
  });

  const fusedHalves = fusedOp<'x', object>({
    name: `${kernelName}Halves`,
    inputs: ['x'],
    forward(ctx, { x }) {
      const [rows, width] = rowsAndWidth(x);
      const y = ctx.out([...x.shape.slice(0, -1), width / 2]);
      ctx.kernels[`${name}Fwd`](ctx.ptr(x), ctx.ptr(x) + 2 * width, ctx.ptr(y), rows, width / 2, 4 * width);
      return [y];
    },
    backward(ctx, [dy], { x }) {
      const [rows, width] = rowsAndWidth(x);
      const dx = ctx.out(x.shape);
      const [at, dAt] = [ctx.ptr(x), ctx.ptr(dx)];
      const pointers = [at, at + 2 * width, ctx.ptr(dy), dAt, dAt + 2 * width];
      ctx.kernels[`${name}Bwd`](...pointers, rows, width / 2, 4 * width);
      return { x: dx };
    },
  });

  function ofPair(inputs: Record<First | Second, tf.Tensor>, form: PlainForm): tf.Tensor {
    const [a, b] = [inputs[first], inputs[second]];
    checkGiven(name, { [first]: a, [second]: b });
    checkDtype(name, { [first]: a, [second]: b });
    checkShapes(name, { [second]: [b, a.shape] });
    return isFused(name, form) ? fusedPair({ a, b }, {})[0] : tf.tidy(() => plain(a, b));
  }

  function ofHalves(x: tf.Tensor, form: PlainForm): tf.Tensor {
    checkGiven(name, { x });
    checkDtype(name, { x });
    if (lastAxis(name, x) % 2 !== 0)
      throw new RangeError(
        `${name}: the last axis of x must be even (${first}, then ${second}), got shape [${x.shape}]`,
      );
    if (isFused(name, form)) return fusedHalves({ x }, {})[0];
    return tf.tidy(() => {
      const [a, b] = tf.split(x, 2, -1);
      return plain(a, b);
    });
  }

  return (inputs, form) => ('x' in inputs ? ofHalves((inputs as { x: tf.Tensor }).x, form) : ofPair(inputs, form));
}

const size = (x: tf.TensorInfo) => tf.util.sizeFromShape(x.shape);
