/** Sums of gradients over several batches. */
import * as tf from '@tensorflow/tfjs';

/**
 * total += factor * grads, by name. A name that `total` lacks is added; a tensor that is replaced in it is disposed of. `grads` stays
 * the caller's.
 * @throws RangeError when `factor` is not finite
 */
export function accumulate(total: Record<string, tf.Tensor>, grads: Record<string, tf.Tensor>, factor: number): void {
  if (!Number.isFinite(factor)) throw new RangeError(`accumulate: factor must be a finite number, got ${factor}`);
  for (const [name, gradient] of Object.entries(grads)) {
    const before = total[name] as tf.Tensor | undefined;
    total[name] = tf.tidy(() => {
      const term = tf.mul(gradient, factor);
      return before ? tf.add(before, term) : term;
    });
    before?.dispose();
  }
}
