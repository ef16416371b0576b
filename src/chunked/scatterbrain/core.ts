/** What both forms compute: attention of a call's queries over given keys, some of them of the past. */
import type * as tf from '@tensorflow/tfjs';
import type { Round } from './support.js';

export interface CoreInputs {
  /** [B, T, H, E] */
  q: tf.Tensor;
  /** [B, S, H, E]: `slots` keys in buckets of the past, `past` keys of the past in the order of time, then the new ones. */
  k: tf.Tensor;
  /** [B, S, H, V] */
  v: tf.Tensor;
  /** [r, E]; undefined: pairs off the support have weight 0. */
  projection?: tf.Tensor;
  // The low-rank state before the call (see `ScatterbrainState`).
  lowRank?: tf.Tensor;
  normalizer?: tf.Tensor;
  exponent?: tf.Tensor;
}

export interface CoreSettings {
  softmaxTemp: number;
  causal: boolean;
  /** Causal only, 0: none. A window of a call that is not causal is one of the rounds. */
  windowSize: number;
  slots: number;
  past: number;
  cuSeqlens?: Int32Array;
  outputFinalState: boolean;
  /** A constant as a tensor of this call. */
  keep: (x: Int32Array) => tf.Tensor;
}

export interface CoreOutput {
  o: tf.Tensor;
  lowRank?: tf.Tensor;
  normalizer?: tf.Tensor;
  exponent?: tf.Tensor;
}

/** A form: `rounds` are those of every sequence and head, sequence by sequence. */
export type Core = (inputs: CoreInputs, settings: CoreSettings, rounds: readonly (readonly Round[])[]) => CoreOutput;
