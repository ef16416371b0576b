/** Token ids and class targets: every one must name a row that exists. */
import * as tf from '@tensorflow/tfjs';

/** How an op speaks of its indices in an error: `{ name: 'ids', of: 'rows of the table' }`. */
export interface IndexNames {
  name: string;
  of: string;
}

/** webgpu gives data back only asynchronously; there `nanOutside` marks what `checkIndices` would have refused. */
function canReadNow(): boolean {
  return tf.getBackend() !== 'webgpu';
}

/**
 * Throws a RangeError for the first index outside [0, size) that is not `ignored`. On webgpu nothing can be checked at the call.
 */
export function checkIndices(op: string, { name, of }: IndexNames, x: tf.Tensor, size: number, ignored?: number): void {
  if (!canReadNow()) return;
  const values = x.dataSync();
  for (let i = 0; i < values.length; i++) {
    const index = values[i];
    if ((index >= 0 && index < size) || index === ignored) continue;
    throw new RangeError(
      `${op}: ${name} must be in 0 .. ${size - 1} (there are ${size} ${of}), got ${index} at [${position(i, x.shape)}]`,
    );
  }
}

/**
 * On webgpu: 0 where an index is in [0, size) or `ignored`, else NaN, to be added to what was read with it, so that a wrong index
 * shows. Undefined on backends where `checkIndices` has already thrown.
 */
export function nanOutside(x: tf.Tensor, size: number, ignored?: number): tf.Tensor | undefined {
  if (canReadNow()) return undefined;
  const inside = tf.logicalAnd(tf.greaterEqual(x, 0), tf.less(x, size));
  const good = ignored === undefined ? inside : tf.logicalOr(inside, tf.equal(x, ignored));
  return tf.where(good, 0, Number.NaN);
}

function position(at: number, shape: number[]): number[] {
  const index: number[] = [];
  for (let axis = shape.length - 1, rest = at; axis >= 0; rest = Math.floor(rest / shape[axis]), axis--)
    index.unshift(rest % shape[axis]);
  return index;
}
