/** Cross entropy of class logits with integer targets: the loss of a language model. */
import * as tf from '@tensorflow/tfjs';
import { checkDtype, checkGiven, checkOneOf, checkShapes } from '../check.js';
import { isFused, type PlainForm } from '../form.js';
import { checkIndices } from '../indices.js';
import { fusedCrossEntropy } from './fused.js';
import { plainCrossEntropy } from './plain.js';

export interface CrossEntropyOptions {
  /** Rows with this target count for nothing: loss 0, gradient 0, not in the mean. Default: none; PyTorch's is -100. */
  ignoreIndex?: number;
  /** 'mean' (default): over the rows that are not ignored; 'none': one loss per row. */
  reduction?: 'mean' | 'none';
  form?: PlainForm;
}

/**
 * -log softmax(logits)[target], in nats, for every row: logsumexp(logits) - logits[target].
 * A logit of -Infinity has probability 0. NaN or Infinity in a row, or a row of -Infinity alone, gives NaN unless the row is
 * ignored. The mean over no row at all (every target ignored) is 0, with gradient 0.
 * On webgpu, whose data cannot be read at the call, a target out of range gives NaN instead of an error.
 * @param inputs logits [N, V], float32; targets [N], int32, each in 0 .. V - 1 or `ignoreIndex`
 * @returns the mean, a scalar, or with reduction 'none' the losses [N]
 * @throws RangeError naming the first target out of range, its position and V
 */
export function crossEntropy(
  { logits, targets }: { logits: tf.Tensor; targets: tf.Tensor },
  { ignoreIndex, reduction = 'mean', form = 'auto' }: CrossEntropyOptions = {},
): tf.Tensor {
  checkGiven('crossEntropy', { logits, targets });
  checkDtype('crossEntropy', { logits });
  checkDtype('crossEntropy', { targets }, 'int32');
  checkShapes('crossEntropy', { logits: [logits, [null, null]], targets: [targets, [logits.shape[0]]] });
  checkOneOf('crossEntropy', 'reduction', reduction, ['mean', 'none']);
  if (logits.size === 0) throw new RangeError(`crossEntropy: logits must not be empty, got [${logits.shape}]`);
  if (ignoreIndex !== undefined && ignoreIndex !== (ignoreIndex | 0))
    throw new RangeError(`crossEntropy: ignoreIndex must be an int32, got ${ignoreIndex}`);
  checkIndices(
    'crossEntropy',
    { name: 'targets', of: 'logits in a row' },
    targets,
    logits.shape[1] as number,
    ignoreIndex,
  );
  if (isFused('crossEntropy', form)) return fusedCrossEntropy(logits, targets, ignoreIndex, reduction);
  return tf.tidy(() => plainCrossEntropy(logits as tf.Tensor2D, targets as tf.Tensor1D, ignoreIndex, reduction));
}
