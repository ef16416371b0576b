/** Diagonal state spaces as one convolution with a kernel as long as the input: T log T, without states in between. */
import * as tf from '@tensorflow/tfjs';
import { pad } from '../chunks.js';
import { longConvolution } from '../longConvolution/index.js';
import { vandermonde } from '../vandermonde/index.js';
import { finalStateOf } from './chunk.js';
import { joined, map, parts, powers, times } from './complex.js';
import type { StateInputs, StateOptions, StateOutput } from './states.js';
import { tapWeights } from './weights.js';

/** README, section 5: o = K * u with K_l = factor Re(sum of c bbar exp(l zeta)) and d added to K_0; `cReverse`: the same against time. */
export function convDiagonalSsm(
  { cReverse, ...inputs }: StateInputs & { cReverse?: tf.Tensor },
  { factor, chunkSize, final }: StateOptions,
): StateOutput {
  const { u, zeta, psi, b, c, d, initialState } = inputs;
  const T = u.shape[1] as number;
  const options = { length: T, conjugate: factor === 2 };
  const taps = (weights: tf.Tensor) => vandermonde({ zeta, w: tapWeights({ psi, b, c: weights }) }, options);
  const kernel = d ? tf.add(taps(c), pad(tf.expandDims(d, 1), 1, [0, T - 1])) : taps(c);
  const o = longConvolution({ u, kernel, kernelReverse: cReverse && taps(cReverse) });
  return {
    o: initialState ? tf.add(o, fading(initialState, inputs, options)) : o,
    ...(final && { finalState: finalStateOf(inputs, chunkSize) }),
  };
}

/** What the initial state adds: factor Re(sum of c exp((t + 1) zeta) x0), taps of a kernel for each sequence and channel. */
function fading(
  initialState: tf.Tensor,
  { zeta, c }: Pick<StateInputs, 'zeta' | 'c'>,
  options: { length: number; conjugate: boolean },
): tf.Tensor {
  const [N, H, M] = initialState.shape;
  const step = map(powers(parts(zeta), tf.ones([1])), (x) => x.reshape([H, M]));
  const w = joined(times(times(parts(c), step), parts(initialState))).reshape([N * H, M, 2]);
  const taps = vandermonde({ zeta: tf.tile(zeta, [N, 1, 1]), w }, options);
  return tf.transpose(taps.reshape([N, H, options.length]), [0, 2, 1]);
}
