/** What classifiers and regressors share: a way in, blocks, pooling over time, and a linear head. */
import * as tf from '@tensorflow/tfjs';
import { linear } from '../../chunked/index.js';
import { recomputed } from '../../chunked/recomputed.js';
import type { ForwardOptions } from '../../layers/index.js';
import type { Rng } from '../../rng.js';
import { type Block, layersOf } from '../decoder.js';
import { initialWeights } from '../initialWeights.js';
import { ofLayer, runBlock } from '../layerRange.js';
import { TIMED_MIXERS } from '../mixers/timed.js';
import { type NamedArrays, TrainableModel } from '../trainableModel.js';
import type { EncoderConfig } from './config.js';
import { createEncoder, type Encoder, encoderParts, HEAD_BIAS, HEAD_WEIGHT } from './encoder.js';
import { pool } from './pool.js';

export interface SequenceModelOptions {
  /** Start of the random weights; default 0. */
  seed?: number | string;
  /** Start from these instead, as `loadWeights` takes them. */
  weights?: NamedArrays;
}

export interface SequenceInputOptions {
  /** Steps of each sequence [B], at least 1 and at most T; what comes after is padding. Default all T. */
  lengths?: ArrayLike<number>;
  /** Time since the step before [B, T], in steps of training data; only for models with a mixer that knows time. */
  intervals?: tf.Tensor;
}

export interface SequenceForwardOptions extends SequenceInputOptions {
  /** Given in training only: dropout draws its masks from it and batch norm takes the statistics of the batch. */
  training?: Rng;
  /** Keep only the input of each block for the backward pass, which runs the block again. Same numbers, default false. */
  recompute?: boolean;
}

/**
 * Block i is `x + drop(mixer(norm(x)))`, and the same with an mlp where there is one; `normPosition: 'post'` has
 * `norm(x + drop(mixer(x)))`. Then the final norm, the mean (or another pooling) over the valid steps, and `W x + b`.
 */
export abstract class SequenceModel<C extends EncoderConfig = EncoderConfig> extends TrainableModel {
  readonly #encoder: Encoder;

  protected constructor(
    label: string,
    /** Every option, defaults filled in. */
    readonly config: C,
    /** Numbers that the head gives for each sequence. */
    readonly numOutputs: number,
    { seed = 0, weights }: SequenceModelOptions,
  ) {
    const encoder = createEncoder(config);
    super(label, encoderParts(encoder, config, numOutputs), initialWeights(seed, config.initializerRange), weights);
    this.#encoder = encoder;
  }

  /**
   * @param inputs [B, T, inputSize] float32, or of a model of tokens [B, T] int32
   * @returns [B, numOutputs]: logits of a classifier, numbers of a regressor
   * @throws RangeError or TypeError when the inputs do not fit the model
   */
  forward(inputs: tf.Tensor, options: SequenceForwardOptions = {}): tf.Tensor2D {
    const lengths = this.#check(inputs, options);
    return tf.tidy(() => {
      const x = this.#runBlocks(inputs, lengths, options);
      const { norm } = this.#encoder;
      const y = norm ? norm.forward(x, undefined, ofLayer({ training: options.training }, 'norm')).y : x;
      const [weight, bias] = [HEAD_WEIGHT, HEAD_BIAS].map((name) => this.weights.get(name) as tf.Variable);
      return linear({ x: pool(y, this.config.pool, lengths), weight, bias }) as tf.Tensor2D;
    });
  }

  #runBlocks(
    inputs: tf.Tensor,
    lengths: Int32Array | undefined,
    { intervals, training, recompute }: SequenceForwardOptions,
  ): tf.Tensor {
    const { input, blocks } = this.#encoder;
    let x = input.forward(inputs).y;
    for (const [i, block] of blocks.entries()) {
      const padded = looksAhead(block) && lengths && { mask: stepMask(x.shape, lengths), lengths };
      const run = (x: tf.Tensor, options: ForwardOptions) => runBlock(block, x, undefined, { ...options, ...padded }).y;
      const options = () => ofLayer({ intervals, training }, i);
      if (recompute) {
        const weights = layersOf(block).flatMap((layer) => [...layer.weightsByName().values()]);
        x = recomputed((x) => run(x, options()), [x], weights);
      } else x = run(x, options());
    }
    return x;
  }

  /** @returns the lengths where any is shorter than T */
  #check(inputs: tf.Tensor, { lengths, intervals }: SequenceInputOptions): Int32Array | undefined {
    const { inputSize } = this.config;
    const [rank, dtype, axes] = inputSize === undefined ? [2, 'int32', ''] : [3, 'float32', `,${inputSize}`];
    if (inputs.rank !== rank || (rank === 3 && inputs.shape[2] !== inputSize))
      throw new RangeError(`${this.label}: inputs must have shape [B,T${axes}], got [${inputs.shape}]`);
    if (inputs.dtype !== dtype) throw new TypeError(`${this.label}: inputs must be ${dtype}, got ${inputs.dtype}`);
    const [B, T] = inputs.shape as [number, number];
    if (intervals && !(intervals.rank === 2 && intervals.shape[0] === B && intervals.shape[1] === T))
      throw new RangeError(`${this.label}: intervals must have shape [${B},${T}], got [${intervals.shape}]`);
    if (intervals && !knowsTime(this.config))
      throw new RangeError(
        `${this.label}: intervals are given, but no mixer of the model knows time (${TIMED_MIXERS.join(', ')} do); leave them out`,
      );
    if (!lengths) return undefined;
    const given = Int32Array.from(lengths);
    const bad = Array.from(lengths).find((n) => !Number.isInteger(n) || n < 1 || n > T);
    if (given.length !== B || bad !== undefined)
      throw new RangeError(
        `${this.label}: lengths must be ${B} integers from 1 to ${T}, got ${bad ?? `${given.length} of them`}`,
      );
    return given.some((n) => n < T) ? given : undefined;
  }
}

/** True for models with a mixer that reads the time between steps. */
export const knowsTime = ({ mixers }: Pick<EncoderConfig, 'mixers'>): boolean =>
  mixers.some(({ type }) => TIMED_MIXERS.includes(type));

/** A mixer that reads in both directions would see the padding. */
const looksAhead = ({ mixer }: Block): boolean => (mixer.options as { bidirectional?: boolean }).bidirectional === true;

/** [B * T, 1]: 1 at the steps of a sequence, 0 past its end. */
function stepMask([B, T]: number[], lengths: Int32Array): tf.Tensor {
  const mask = new Float32Array(B * T);
  for (const [b, length] of lengths.entries()) mask.fill(1, b * T, b * T + length);
  return tf.tensor(mask, [B * T, 1]);
}
