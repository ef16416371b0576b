/** Several projections of the same input in one op, whose gradients for it are summed where they arise. */
import type * as tf from '@tensorflow/tfjs';
import { checkDtype, checkGiven, checkShapes } from '../check.js';
import { isFused } from '../form.js';
import { multiply } from '../product/index.js';
import { lastAxis, rowsAndWidth } from '../rows.js';
import { fusedOp } from '../wasm/fusedOp.js';
import type { WasmContext } from '../wasm/runtime.js';
import { weightGradient } from './fused.js';
import { type LinearOptions, linear } from './index.js';

const NAMES = ['weight0', 'weight1', 'weight2', 'weight3', 'weight4', 'weight5', 'weight6', 'weight7'] as const;
type Weight = (typeof NAMES)[number];

/**
 * `weights.map((weight) => linear({ x, weight }))`, on wasm in one op.
 * @param inputs x [..., I]; up to eight weights [O, I], each with an O of its own; float32
 * @returns [..., O] for each weight
 * @throws TypeError for a missing or non-float32 tensor, RangeError for a weight that does not fit or for too many
 */
export function linearAll(
  { x, weights }: { x: tf.Tensor; weights: readonly tf.Tensor[] },
  { form = 'auto' }: LinearOptions = {},
): tf.Tensor[] {
  if (weights.length === 0 || weights.length > NAMES.length)
    throw new RangeError(`linearAll: there must be 1 to ${NAMES.length} weights, got ${weights.length}`);
  const named = Object.fromEntries(weights.map((weight, i) => [NAMES[i], weight]));
  checkGiven('linearAll', { x, ...named });
  const I = lastAxis('linearAll', x);
  checkDtype('linearAll', { x, ...named });
  checkShapes('linearAll', Object.fromEntries(weights.map((weight, i) => [NAMES[i], [weight, [null, I]]])));
  if (isFused('linearAll', form)) return fused({ x, ...named }, {});
  return weights.map((weight) => linear({ x, weight }, { form }));
}

type WeightGradient = (ctx: WasmContext, dys: tf.TensorInfo[], inputs: { x: tf.TensorInfo }) => tf.TensorInfo;

const gradientOfWeight =
  (i: number): WeightGradient =>
  (ctx, dys, { x }) =>
    weightGradient(ctx, dys[i], x);

const fused = fusedOp<'x' | Weight, object, Weight>({
  name: 'LinearAll',
  inputs: ['x', ...NAMES],
  forward(ctx, { x, ...weights }) {
    const [rows, I] = rowsAndWidth(x);
    return inOrder(weights).map((weight) => {
      const O = weight.shape[0];
      const y = ctx.out([...x.shape.slice(0, -1), O]);
      multiply(ctx, ctx.ptr(x), ctx.ptr(weight), 0, ctx.ptr(y), { M: rows, N: O, K: I, transposeB: true });
      return y;
    });
  },
  backward: {
    x(ctx, dys, { x, ...weights }) {
      const [rows, I] = rowsAndWidth(x);
      const dx = ctx.out(x.shape);
      for (const [i, weight] of inOrder(weights).entries()) {
        const size = { M: rows, N: I, K: weight.shape[0], add: i > 0 };
        multiply(ctx, ctx.ptr(dys[i]), ctx.ptr(weight), 0, ctx.ptr(dx), size);
      }
      return dx;
    },
    ...(Object.fromEntries(NAMES.map((name, i) => [name, gradientOfWeight(i)])) as Record<Weight, WeightGradient>),
  },
});

/** The weights that were given: the first few. */
const inOrder = (weights: Partial<Record<Weight, tf.TensorInfo>>) => NAMES.flatMap((name) => weights[name] ?? []);
