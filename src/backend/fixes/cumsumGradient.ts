import * as tf from '@tensorflow/tfjs';
import { type Fix, replaceGradient, stockGradient } from './replaceKernel.js';

/** With c = cumsum(x), dx is the cumulative sum of dc from the other end. The stock gradient transposes that once too often. */
export const cumsumGradient: Fix = {
  name: 'cumsum gradient',
  defect: 'transposed (or of a wrong shape) unless the axis is the last',
  backend: 'any',
  install: () =>
    replaceGradient({
      kernelName: tf.Cumsum,
      gradFunc: (dy, _saved, attrs) => {
        const { axis, exclusive, reverse } = attrs as unknown as tf.CumsumAttrs;
        return { x: () => tf.cumsum(dy as tf.Tensor, axis, exclusive, !reverse) };
      },
    }),
  installed: () => stockGradient(tf.Cumsum) !== undefined,
};
