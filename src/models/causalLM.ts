/** One decoder for every language model: embedding, pre-norm blocks of a mixer and a channel mixer, final norm, head. */
import * as tf from '@tensorflow/tfjs';
import { checkDtype } from '../chunked/check.js';
import {
  bitLinear,
  embedding,
  linear,
  type PackedWeight,
  packedBitLinear,
  roundedActivations,
  roundedWeight,
} from '../chunked/index.js';
import { recomputed } from '../chunked/recomputed.js';
import type { ForwardOptions, LayerState, SeqLayer } from '../layers/index.js';
import type { Rng } from '../rng.js';
import type { AnyModelConfig } from './anyConfig.js';
import { type ModelConfig, type ModelConfigInput, resolveModelConfig } from './config.js';
import { createDecoder, type Decoder, HEAD, HEAD_NORM, layersOf, partsOf, TABLE } from './decoder.js';
import { type HeadInputs, type HeadRows, headLoss, headScore, headScoreLoss } from './headLoss.js';
import { initialWeights, startFactor } from './initialWeights.js';
import { ofLayer, runBlock, runLayers } from './layerRange.js';
import { type NamedArrays, type PackedArrays, TrainableModel, WeightsError } from './trainableModel.js';

/** What a model remembers of the tokens it has read: the state of each layer's mixer. The caller owns the tensors. */
export type ModelState = LayerState[];

export interface CausalLMOptions {
  /** Start of the random weights; default 0. */
  seed?: number | string;
  /** Start from these instead, as `loadWeights` takes them: saves drawing random ones. */
  weights?: NamedArrays;
  /** Of a packed model, whose config says so: its ternary matrices; `weights` are the others. */
  packed?: PackedArrays;
}

export interface CausalLMForwardOptions {
  /** Packed documents: offsets `[0, n1, n1 + n2, ..., T]`; needs B = 1. */
  cuSeqlens?: Int32Array;
  /** Compute the logits of the last token only, [B, 1, V] (packed: of each document, [documents, 1, V]). Default false. */
  lastOnly?: boolean;
}

export interface CausalLMOutput {
  /** [B, T, V] */
  logits: tf.Tensor3D;
  /** The state after the last token. */
  state: ModelState;
}

export interface LossOptions {
  /** Packed documents: offsets `[0, n1, n1 + n2, ..., T]`; needs B = 1. */
  cuSeqlens?: Int32Array;
  /** Positions with this target count for nothing; default -100. */
  ignoreIndex?: number;
  /**
   * Score these places alone, numbered over the flattened [B, T]: `targets` is then [positions.length]. Spares the logits of the others
   * where few places count.
   */
  positions?: Int32Array;
  /** Keep only the input of each block for the backward pass, which runs the block again. Same numbers, default false. */
  recompute?: boolean;
  /** Given in training only: dropout draws its masks from it. */
  training?: Rng;
}

/**
 * A decoder-only language model built from a config. Layer i: `h = x + mixer(norm(x))`, `y = h + mlp(norm(h))`.
 * Weights bear the names of the published checkpoints (`model.layers.0.attn.q_proj.weight`).
 */
export class CausalLM extends TrainableModel {
  /** Every option, defaults filled in. */
  readonly config: ModelConfig;
  readonly #decoder: Decoder;
  /** [V, D]: the output projection. */
  readonly #head: tf.Variable<tf.Rank.R2> | PackedWeight;
  /** [D]: the scale of its norm, where it is ternary. */
  readonly #headNorm: tf.Variable | undefined;

  /** @throws ConfigError that lists everything wrong with the config (that of a classifier is wrong), WeightsError as `loadWeights` does */
  constructor(input: ModelConfigInput | AnyModelConfig = {}, { seed = 0, weights, packed }: CausalLMOptions = {}) {
    const config = resolveModelConfig(input);
    checkMark(config, packed);
    const decoder = createDecoder(config);
    super(
      'CausalLM',
      partsOf(config, decoder),
      initialWeights(seed, config.initializerRange, startFactor(config)),
      weights,
      packed,
    );
    [this.config, this.#decoder] = [config, decoder];
    const head = config.tieEmbeddings ? TABLE : HEAD;
    this.#head = this.packed.get(head) ?? (this.weights.get(head) as tf.Variable<tf.Rank.R2>);
    this.#headNorm = this.weights.get(HEAD_NORM);
  }

  /**
   * State in, state out: this one method trains, reads a prompt in pieces and decodes one token.
   * @param ids [B, T] int32, each in 0 .. vocabSize - 1
   * @param state from an earlier call or `initialState`; zeros if absent. It is not disposed
   * @throws RangeError or TypeError when ids or state do not fit the model
   */
  forward(
    ids: tf.Tensor,
    state?: ModelState,
    { cuSeqlens, lastOnly = false }: CausalLMForwardOptions = {},
  ): CausalLMOutput {
    this.#check('forward', { ids }, state);
    return tf.tidy(() => {
      const { x, state: next } = this.#runBlocks(ids, state, { cuSeqlens });
      const { y } = this.#decoder.norm.forward(lastOnly ? lastTokens(x, cuSeqlens) : x);
      return { logits: this.#logits(y), state: next } as unknown as tf.TensorContainerObject;
    }) as unknown as CausalLMOutput;
  }

  #logits(x: tf.Tensor): tf.Tensor {
    const [weight, norm] = [this.#head, this.#headNorm];
    if (!(weight instanceof tf.Tensor)) return packedBitLinear({ x, weight, norm });
    return norm ? bitLinear({ x, weight, norm }) : linear({ x, weight });
  }

  /**
   * The beginning of `forward`: the embedding and the layers before layer `to`, for a pipeline over layers.
   * @param ids [B, T] int32
   * @param state of these layers; not disposed
   * @returns x [B, T, hiddenSize], the input of layer `to`, and the state of these layers
   */
  forwardTo(to: number, ids: tf.Tensor, state?: ModelState): { x: tf.Tensor; state: ModelState } {
    this.#check('forwardTo', { ids });
    const run = () => runLayers(this.#decoder, { from: 0, to }, ids, state) as unknown as tf.TensorContainerObject;
    return tf.tidy(run) as unknown as { x: tf.Tensor; state: ModelState };
  }

  /**
   * Reads `ids` to show what goes into the mixer of each layer.
   * @param ids [B, T] int32
   * @param look called with the number of the layer, its mixer and the input of that [B, T, hiddenSize], which is freed afterwards
   */
  watchMixers(ids: tf.Tensor, look: (layer: number, mixer: SeqLayer, x: tf.Tensor) => void): void {
    this.#check('watchMixers', { ids });
    tf.tidy(() => {
      let x = this.#decoder.embeddings.forward(ids).y;
      for (const [i, block] of this.#decoder.blocks.entries())
        x = runBlock(block, x, undefined, { look: (input) => look(i, block.mixer, input) }).y;
    });
  }

  /**
   * Mean negative log likelihood of `targets`, nats per token. The logits of a large vocabulary are never held all at once.
   * @param inputs [B, T] int32
   * @param targets [B, T] int32: the token after each input
   */
  loss(inputs: tf.Tensor, targets: tf.Tensor, { ignoreIndex, ...options }: LossOptions = {}): tf.Scalar {
    return tf.tidy(() => {
      const rows = this.#scored('loss', inputs, targets, options);
      return 'weight' in rows ? headLoss(rows, { ignoreIndex }) : headScoreLoss(rows, { ignoreIndex });
    });
  }

  /**
   * The `loss`, and how many targets were the likeliest token (of equals the first): `hits`, float32.
   * @param inputs as for `loss`
   * @param targets as for `loss`
   */
  score(
    inputs: tf.Tensor,
    targets: tf.Tensor,
    { ignoreIndex, ...options }: Omit<LossOptions, 'recompute' | 'training'> = {},
  ): { loss: tf.Scalar; hits: tf.Scalar } {
    return tf.tidy(() => {
      const rows = this.#scored('score', inputs, targets, options);
      if (!('weight' in rows)) return headScore(rows, { ignoreIndex });
      const { x, weight, targets: wanted } = rows;
      const project = (x: tf.Tensor2D) => linear({ x, weight }) as tf.Tensor2D;
      return headScore({ x, project, vocabSize: this.config.vocabSize, targets: wanted }, { ignoreIndex });
    });
  }

  /** What the head is to score: normed rows [N, D] and their targets [N]; a packed head multiplies by itself. */
  #scored(
    method: string,
    inputs: tf.Tensor,
    targets: tf.Tensor,
    { recompute, positions, ...options }: Omit<LossOptions, 'ignoreIndex'>,
  ): HeadInputs | HeadRows {
    this.#check(method, { inputs });
    const shape = positions ? [positions.length] : inputs.shape;
    if (!tf.util.arraysEqual(shape, targets.shape))
      throw new RangeError(`CausalLM.${method}: targets must have shape [${shape}], got [${targets.shape}]`);
    checkDtype(`CausalLM.${method}`, { targets }, 'int32');
    const x = recompute ? this.#recomputedBlocks(inputs, options) : this.#runBlocks(inputs, undefined, options).x;
    const all = tf.reshape(x, [-1, this.config.hiddenSize]);
    const rows = positions ? embedding({ ids: tf.tensor1d(positions, 'int32'), table: all }) : all;
    const normed = this.#decoder.norm.forward(tf.expandDims(rows)).y.reshape(rows.shape as [number, number]);
    const wanted = tf.reshape(targets, [-1]) as tf.Tensor1D;
    const [weight, norm] = [this.#head, this.#headNorm];
    if (!(weight instanceof tf.Tensor)) {
      const project = (x: tf.Tensor2D) => this.#logits(x) as tf.Tensor2D;
      return { x: normed as tf.Tensor2D, project, vocabSize: this.config.vocabSize, targets: wanted };
    }
    const factors = norm
      ? { x: roundedActivations({ x: normed, norm }), weight: roundedWeight(weight) }
      : { x: normed, weight };
    return { ...(factors as Pick<HeadInputs, 'x' | 'weight'>), targets: wanted };
  }

  /** The state before the first token. The caller owns it. */
  initialState(batch = 1): ModelState {
    return this.#decoder.blocks.map(({ mixer }) => mixer.initialState(batch));
  }

  /** Bytes of the state of `batch` sequences that have read `position` tokens. */
  stateBytes(batch = 1, position = 0): number {
    return this.#decoder.blocks.reduce((sum, { mixer }) => sum + mixer.stateSize(batch, position), 0);
  }

  #runBlocks(ids: tf.Tensor, state?: ModelState, options?: ForwardOptions): { x: tf.Tensor; state: ModelState } {
    return runLayers(this.#decoder, { from: 0, to: this.config.numLayers }, ids, state, options);
  }

  /** The blocks without their states. */
  #recomputedBlocks(ids: tf.Tensor, options: ForwardOptions): tf.Tensor {
    let x = this.#decoder.embeddings.forward(ids).y;
    for (const [i, block] of this.#decoder.blocks.entries()) {
      const weights = layersOf(block).flatMap((layer) => [...layer.weightsByName().values()]);
      x = recomputed((x) => runBlock(block, x, undefined, ofLayer(options, i)).y, [x], weights);
    }
    return x;
  }

  #check(method: string, tokens: Record<string, tf.Tensor>, state?: ModelState): void {
    for (const [name, x] of Object.entries(tokens)) {
      if (x.rank !== 2) throw new RangeError(`CausalLM.${method}: ${name} must have shape [B,T], got [${x.shape}]`);
      if (x.dtype !== 'int32')
        throw new TypeError(
          `CausalLM.${method}: ${name} must be int32, got ${x.dtype}; cast it with tf.cast(${name}, 'int32')`,
        );
    }
    const { numLayers } = this.config;
    if (state && state.length !== numLayers)
      throw new RangeError(`CausalLM.${method}: the state must be of ${numLayers} layers, got ${state.length}`);
  }
}

/** A config and weights must both be of a packed model, or neither. */
function checkMark({ packed: encoding }: ModelConfig, packed: PackedArrays | undefined): void {
  if (encoding && !packed)
    throw new WeightsError(
      `CausalLM: a packed model (packed: "${encoding}") is for inference and needs its packed weights; open its folder, or leave out \`packed\` to train one`,
    );
  if (packed && !encoding)
    throw new WeightsError('CausalLM: packed weights need a config that says so (packed: "2bit" or "base3")');
}

/** [B, T, D] -> [B, 1, D]; packed: [1, T, D] -> [documents, 1, D] */
function lastTokens(x: tf.Tensor, cuSeqlens?: Int32Array): tf.Tensor {
  const [B, T, D] = x.shape as [number, number, number];
  if (!cuSeqlens) return tf.slice(x, [0, T - 1, 0], [B, 1, D]);
  const rows = tf.tensor1d(
    cuSeqlens.subarray(1).map((end) => end - 1),
    'int32',
  );
  return tf.reshape(tf.gather(tf.reshape(x, [T, D]), rows), [-1, 1, D]);
}
