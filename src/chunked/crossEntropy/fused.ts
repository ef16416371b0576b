/** Cross entropy as one kernel call each way on wasm. */
import type * as tf from '@tensorflow/tfjs';
import { fusedOp } from '../wasm/fusedOp.js';

/** No target can have it: `checkIndices` would have refused. */
const NONE = -(2 ** 31);

export function fusedCrossEntropy(
  logits: tf.Tensor,
  targets: tf.Tensor,
  ignoreIndex: number | undefined,
  reduction: 'mean' | 'none',
): tf.Tensor {
  return op({ logits, targets }, { ignored: ignoreIndex ?? NONE, mean: reduction === 'mean' })[0];
}

/** Outputs: the loss, and the largest logit and the sum of the exponentials beside it of every row, [N, 2]. */
const op = fusedOp<'logits' | 'targets', { ignored: number; mean: boolean }>({
  name: 'CrossEntropy',
  inputs: ['logits', 'targets'],
  saveOutputs: true,
  forward(ctx, { logits, targets }, { ignored, mean }) {
    const [N, V] = logits.shape;
    const [loss, stats] = [ctx.out(mean ? [] : [N]), ctx.out([N, 2])];
    const pointers = [logits, targets, loss, stats].map((x) => ctx.ptr(x));
    ctx.kernels.crossEntropyFwd(...pointers, N, V, ignored, Number(mean));
    return [loss, stats];
  },
  backward(ctx, [dy], { logits, targets }, [, stats], { ignored, mean }) {
    const [N, V] = logits.shape;
    const dLogits = ctx.out(logits.shape);
    const pointers = [logits, targets, stats, dy, dLogits].map((x) => ctx.ptr(x));
    ctx.kernels.crossEntropyBwd(...pointers, N, V, ignored, Number(mean));
    return { logits: dLogits };
  },
});
