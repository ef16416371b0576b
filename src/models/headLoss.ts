/** Output projection and cross entropy in one, so that the logits of a large vocabulary never exist all at once. */
import * as tf from '@tensorflow/tfjs';
import { crossEntropy, linear } from '../chunked/index.js';

/** Logits held at once (16 MiB of float32) before the rows are taken in pieces. */
const MAX_LOGITS = 2 ** 22;

export interface HeadLossOptions {
  /** Rows with this target count for nothing; default -100. */
  ignoreIndex?: number;
  /** Logits to hold at once, in elements; default 2^22. */
  maxLogits?: number;
}

/** x [N, D], weight [V, D], targets [N] int32 */
export interface HeadInputs {
  x: tf.Tensor2D;
  weight: tf.Tensor2D;
  targets: tf.Tensor1D;
}

/** Rows to be scored, the projection of some of them to logits [n, V], and targets [N] int32. */
export interface HeadRows {
  /** [N, D] */
  x: tf.Tensor2D;
  project: (x: tf.Tensor2D) => tf.Tensor2D;
  vocabSize: number;
  targets: tf.Tensor1D;
}

/**
 * Mean over the rows of `-log softmax(x W^T)[target]`, in nats.
 * Up to `maxLogits` logits this is `crossEntropy(linear(x, W))`. Beyond that, rows are taken in pieces: the forward pass keeps
 * nothing but its inputs, and the backward pass computes the logits of each piece again.
 */
export function headLoss(
  { x, weight, targets }: HeadInputs,
  { ignoreIndex = -100, maxLogits = MAX_LOGITS }: HeadLossOptions = {},
): tf.Scalar {
  const V = weight.shape[0];
  if (x.shape[0] * V <= maxLogits)
    return tf.tidy(() => crossEntropy({ logits: linear({ x, weight }), targets }, { ignoreIndex }) as tf.Scalar);
  const pieces = rowPieces(x.shape[0], V, maxLogits);
  const op = tf.customGrad((...args) => {
    const [x, weight, targets, save] = args as unknown as [tf.Tensor2D, tf.Tensor2D, tf.Tensor1D, tf.GradSaveFunc];
    save([x, weight, targets]);
    const project = (x: tf.Tensor2D) => linear({ x, weight }) as tf.Tensor2D;
    const value = meanLoss({ x, project, vocabSize: V, targets }, pieces, ignoreIndex);
    const gradFunc = (dy: tf.Tensor, saved: tf.Tensor[]) => {
      const [x, weight, targets] = saved as [tf.Tensor2D, tf.Tensor2D, tf.Tensor1D];
      const [dx, dWeight] = gradients(dy, x, weight, targets, pieces, ignoreIndex);
      return [dx, dWeight, tf.zerosLike(targets)];
    };
    return { value, gradFunc };
  });
  return op(x, weight, targets);
}

/** The loss of `headLoss`, and the number of rows whose target has the highest logit (of equals the first). Not to be differentiated. */
export function headScore(
  rows: HeadRows,
  { ignoreIndex = -100, maxLogits = MAX_LOGITS }: HeadLossOptions = {},
): { loss: tf.Scalar; hits: tf.Scalar } {
  return tf.tidy(() => {
    const { x, project, vocabSize, targets } = rows;
    const pieces = rowPieces(x.shape[0], vocabSize, maxLogits);
    const loss = meanLoss(rows, pieces, ignoreIndex);
    const hits = pieces.map(([start, count]) =>
      tf.tidy(() => {
        const likeliest = tf.argMax(project(tf.slice(x, [start, 0], [count, -1])), 1);
        return tf.sum(tf.cast(tf.equal(likeliest, tf.slice(targets, start, count)), 'float32'));
      }),
    );
    return { loss, hits: tf.addN(hits) as tf.Scalar };
  });
}

/** The loss of `headLoss` by itself, for a projection that has no gradient. */
export function headScoreLoss(
  rows: HeadRows,
  { ignoreIndex = -100, maxLogits = MAX_LOGITS }: HeadLossOptions = {},
): tf.Scalar {
  return meanLoss(rows, rowPieces(rows.x.shape[0], rows.vocabSize, maxLogits), ignoreIndex);
}

type Piece = [start: number, rows: number];

/** N rows of V logits in pieces of at most `maxLogits`. */
function rowPieces(N: number, V: number, maxLogits: number): Piece[] {
  const rows = Math.max(1, Math.floor(maxLogits / V));
  return Array.from({ length: Math.ceil(N / rows) }, (_, i) => [i * rows, Math.min(rows, N - i * rows)]);
}

function meanLoss({ x, project, targets }: HeadRows, pieces: Piece[], ignoreIndex: number): tf.Scalar {
  return tf.tidy(() => {
    const losses = pieces.map(([start, rows]) =>
      tf.tidy(() => {
        const logits = project(tf.slice(x, [start, 0], [rows, -1]));
        return crossEntropy({ logits, targets: tf.slice(targets, start, rows) }, { ignoreIndex, reduction: 'none' });
      }),
    );
    return tf.div(tf.sum(tf.concat(losses)), countKept(targets, ignoreIndex));
  });
}

/** With p = softmax(x W^T): dLogits = (p - onehot(target)) * dy / count, dx = dLogits W, dW = dLogits^T x. */
function gradients(
  dy: tf.Tensor,
  x: tf.Tensor2D,
  weight: tf.Tensor2D,
  targets: tf.Tensor1D,
  pieces: Piece[],
  ignoreIndex: number,
) {
  return tf.tidy(() => {
    const rowScale = tf.mul(kept(targets, ignoreIndex), tf.div(dy, countKept(targets, ignoreIndex))); // [N]
    const dxs: tf.Tensor[] = [];
    let dWeight: tf.Tensor = tf.zerosLike(weight);
    for (const [start, rows] of pieces) {
      const [dx, sum] = tf.tidy(() => {
        const xs = tf.slice(x, [start, 0], [rows, -1]);
        const hot = tf.oneHot(tf.slice(targets, start, rows), weight.shape[0]); // int32: as float32 it is wrong on wasm (4.22)
        const error = tf.sub(tf.softmax(linear({ x: xs, weight })), hot);
        const dLogits = tf.mul(error, tf.reshape(tf.slice(rowScale, start, rows), [rows, 1])) as tf.Tensor2D;
        return [tf.matMul(dLogits, weight), tf.add(dWeight, tf.matMul(dLogits, xs, true, false))];
      });
      dWeight.dispose();
      dxs.push(dx);
      dWeight = sum;
    }
    return [tf.concat(dxs), dWeight];
  });
}

/** 1 for rows that count, 0 for ignored ones. */
const kept = (targets: tf.Tensor1D, ignoreIndex: number) => tf.cast(tf.notEqual(targets, ignoreIndex), 'float32');

/** As `crossEntropy` counts: at least 1, so that a batch of ignored rows has loss 0. */
const countKept = (targets: tf.Tensor1D, ignoreIndex: number) => tf.maximum(tf.sum(kept(targets, ignoreIndex)), 1);
