/** Shapes of the two weights most layers are made of. */
import type { WeightSpec } from './seqLayer.js';

/** A matrix [out, in]. */
export const matrix = (out: number, fanIn: number): WeightSpec => ({ shape: [out, fanIn], kind: 'matrix', fanIn });

/** A bias of `size` outputs, each of which sums over `fanIn` inputs. */
export const bias = (size: number, fanIn: number): WeightSpec => ({ shape: [size], kind: 'bias', fanIn });

/** The scale of a norm over `size` channels. */
export const normScale = (size: number): WeightSpec => ({ shape: [size], kind: 'norm' });

/** Taps of a depthwise convolution, [channels, 1, width] as published. */
export const convTaps = (channels: number, width: number): WeightSpec => ({
  shape: [channels, 1, width],
  kind: 'matrix',
  fanIn: width,
});

/** A start of zeros. */
export const zeros: NonNullable<WeightSpec['init']> = (_, size) => new Float32Array(size);
