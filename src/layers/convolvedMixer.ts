/** What mixers with a short convolution on q, k and v share: its weights, its states and its call. */
import * as tf from '@tensorflow/tfjs';
import { causalConv1d } from '../chunked/index.js';
import { type LayerState, SeqLayer, type StateSpec, type WeightSpec } from './seqLayer.js';
import { bias, convTaps, type LinearOption } from './weightSpecs.js';

export interface ShortConvOptions extends LinearOption {
  hiddenSize: number;
  /** Short causal convolution and SiLU on q, k and v; in MLGRU see there. */
  useShortConv: boolean;
  /** Taps of the short convolution. */
  convSize: number;
  convBias: boolean;
}

export type Projection = 'q' | 'k' | 'v';
/** What a convolution is on: projections of x, or `h`, the input itself. */
export type Convolved = Projection | 'h' | 'i' | 'f';
/** Channels of each projection. */
export type Widths = Record<Projection, number>;

/** The projections of x by the names of their matrices, such as `q_proj`. */
export type Projected = Record<string, tf.Tensor>;

const stateName = (name: Convolved) => `conv${name.toUpperCase()}`;

export abstract class ConvolvedMixer<O extends ShortConvOptions> extends SeqLayer<O> {
  /** Taps and biases of the given projections by their published names; none without the convolution. */
  protected convSpecs(widths: Partial<Record<Convolved, number>>): Record<string, WeightSpec> {
    const { useShortConv, convSize, convBias } = this.options;
    if (!useShortConv) return {};
    const specs = Object.entries(widths).flatMap(([name, width]) => [
      [`${name}_conv1d.weight`, convTaps(width, convSize)],
      ...(convBias ? [[`${name}_conv1d.bias`, bias(width, convSize)]] : []),
    ]);
    return Object.fromEntries(specs);
  }

  /** States convQ, convK, ... [batch, width, convSize]: the last inputs. */
  protected convStates(batch: number, widths: Partial<Record<Convolved, number>>): Record<string, StateSpec> {
    const { useShortConv, convSize } = this.options;
    if (!useShortConv) return {};
    const specs = Object.entries(widths).map(([name, width]) => [
      stateName(name as Convolved),
      { shape: [batch, width, convSize] },
    ]);
    return Object.fromEntries(specs);
  }

  /** x [B, T, width] -> the same shape, convolved and put through SiLU; its new state goes into `next`. */
  protected convolve(
    name: Convolved,
    x: tf.Tensor,
    state: LayerState | undefined,
    next: LayerState,
    cuSeqlens?: Int32Array,
  ): tf.Tensor {
    const key = stateName(name);
    const taps = this.need(`${name}_conv1d.weight`);
    const weight = tf.reshape(taps, [taps.shape[0], taps.shape[2] as number]);
    const { o, finalState } = causalConv1d(
      { x, weight, bias: this.weight(`${name}_conv1d.bias`), initialState: state?.[key] },
      { activation: 'silu', cuSeqlens },
    );
    next[key] = finalState;
    return o;
  }

  /** `convolve`, or SiLU alone where the options leave the convolution out. */
  protected mixLocally(
    name: Projection,
    x: tf.Tensor,
    state: LayerState | undefined,
    next: LayerState,
    cuSeqlens?: Int32Array,
  ): tf.Tensor {
    return this.options.useShortConv ? this.convolve(name, x, state, next, cuSeqlens) : tf.mul(x, tf.sigmoid(x));
  }
}
