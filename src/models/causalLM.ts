/** One decoder for every language model: embedding, pre-norm blocks of a mixer and a channel mixer, final norm, head. */
import * as tf from '@tensorflow/tfjs';
import { checkDtype } from '../chunked/check.js';
import { embedding, linear } from '../chunked/index.js';
import type { LayerState, SeqLayer, WeightInit, WeightSpec } from '../layers/index.js';
import { type ModelConfig, type ModelConfigInput, resolveModelConfig } from './config.js';
import { createDecoder, type Decoder, HEAD, namedLayers, namedSpecs, TABLE } from './decoder.js';
import { type HeadInputs, headLoss, headScore } from './headLoss.js';
import { initialWeights } from './initialWeights.js';
import { runBlock, runLayers } from './layerRange.js';
import { recomputed } from './recompute.js';

/** What a model remembers of the tokens it has read: the state of each layer's mixer. The caller owns the tensors. */
export type ModelState = LayerState[];

/** Float32 arrays by name: what `loadWeights` takes. */
export type NamedArrays = ReadonlyMap<string, { shape: readonly number[]; data: Float32Array }>;

export interface CausalLMOptions {
  /** Start of the random weights; default 0. */
  seed?: number | string;
  /** Start from these instead, as `loadWeights` takes them: saves drawing random ones. */
  weights?: NamedArrays;
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
}

/** The weights do not fit the model: nothing was loaded. */
export class WeightsError extends Error {
  override readonly name = 'WeightsError';
}

/**
 * A decoder-only language model built from a config. Layer i: `h = x + mixer(norm(x))`, `y = h + mlp(norm(h))`.
 * Weights bear the names of the published checkpoints (`model.layers.0.attn.q_proj.weight`).
 */
export class CausalLM {
  /** Every option, defaults filled in. */
  readonly config: ModelConfig;
  /** All trainable weights by their published names. */
  readonly weights: ReadonlyMap<string, tf.Variable>;
  /** Weights that no optimizer moves, and their rates: their "gradients" are surpluses of load (see `WeightSpec.balanceRate`). */
  readonly balanceRates: ReadonlyMap<string, number>;
  readonly #decoder: Decoder;
  readonly #decayed: ReadonlySet<string>;
  /** [V, D]: the output projection. */
  readonly #head: tf.Variable<tf.Rank.R2>;

  /** @throws ConfigError that lists everything wrong with the config, WeightsError as `loadWeights` does */
  constructor(config: ModelConfigInput | ModelConfig = {}, { seed = 0, weights }: CausalLMOptions = {}) {
    this.config = resolveModelConfig(config);
    this.#decoder = createDecoder(this.config);
    const specs = namedSpecs(this.config, this.#decoder);
    this.#decayed = new Set([...specs].filter(([, { kind }]) => kind === 'matrix').map(([name]) => name));
    this.balanceRates = new Map(
      [...specs].flatMap(([name, { balanceRate }]) => (balanceRate === undefined ? [] : [[name, balanceRate]])),
    );
    if (weights) checkWeights('CausalLM', specs, weights);
    const random = initialWeights(seed, this.config.initializerRange);
    this.weights = buildWeights(this.#decoder, specs, (name, spec) => weights?.get(name)?.data ?? random(name, spec));
    this.#head = this.weights.get(this.config.tieEmbeddings ? TABLE : HEAD) as tf.Variable<tf.Rank.R2>;
  }

  /** Numbers in all weights; a tied head counts once. */
  get numParameters(): number {
    return [...this.weights.values()].reduce((sum, { size }) => sum + size, 0);
  }

  /** True for the weights that weight decay should leave alone: norms, biases and gates' constants. */
  noDecay(name: string): boolean {
    return !this.#decayed.has(name);
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
      const { x, state: next } = this.#runBlocks(ids, state, cuSeqlens);
      const { y } = this.#decoder.norm.forward(lastOnly ? lastTokens(x, cuSeqlens) : x);
      return { logits: linear({ x: y, weight: this.#head }), state: next } as unknown as tf.TensorContainerObject;
    }) as unknown as CausalLMOutput;
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
        x = runBlock(block, x, undefined, undefined, (input) => look(i, block.mixer, input)).y;
    });
  }

  /**
   * Mean negative log likelihood of `targets`, nats per token. The logits of a large vocabulary are never held all at once.
   * @param inputs [B, T] int32
   * @param targets [B, T] int32: the token after each input
   */
  loss(inputs: tf.Tensor, targets: tf.Tensor, { ignoreIndex, ...options }: LossOptions = {}): tf.Scalar {
    return tf.tidy(() => headLoss(this.#scored('loss', inputs, targets, options), { ignoreIndex }));
  }

  /**
   * The `loss`, and how many targets were the likeliest token (of equals the first): `hits`, float32.
   * @param inputs as for `loss`
   * @param targets as for `loss`
   */
  score(
    inputs: tf.Tensor,
    targets: tf.Tensor,
    { ignoreIndex, ...options }: Omit<LossOptions, 'recompute'> = {},
  ): { loss: tf.Scalar; hits: tf.Scalar } {
    return tf.tidy(() => headScore(this.#scored('score', inputs, targets, options), { ignoreIndex }));
  }

  /** What the head is to score: normed rows [N, D] and their targets [N]. */
  #scored(
    method: string,
    inputs: tf.Tensor,
    targets: tf.Tensor,
    { cuSeqlens, recompute, positions }: Omit<LossOptions, 'ignoreIndex'>,
  ): HeadInputs {
    this.#check(method, { inputs });
    const shape = positions ? [positions.length] : inputs.shape;
    if (!tf.util.arraysEqual(shape, targets.shape))
      throw new RangeError(`CausalLM.${method}: targets must have shape [${shape}], got [${targets.shape}]`);
    checkDtype(`CausalLM.${method}`, { targets }, 'int32');
    const x = recompute ? this.#recomputedBlocks(inputs, cuSeqlens) : this.#runBlocks(inputs, undefined, cuSeqlens).x;
    const all = tf.reshape(x, [-1, this.config.hiddenSize]);
    const rows = positions ? embedding({ ids: tf.tensor1d(positions, 'int32'), table: all }) : all;
    return {
      x: this.#decoder.norm.forward(tf.expandDims(rows)).y.reshape(rows.shape as [number, number]),
      weight: this.#head,
      targets: tf.reshape(targets, [-1]),
    };
  }

  /** The state before the first token. The caller owns it. */
  initialState(batch = 1): ModelState {
    return this.#decoder.blocks.map(({ mixer }) => mixer.initialState(batch));
  }

  /** Bytes of the state of `batch` sequences that have read `position` tokens. */
  stateBytes(batch = 1, position = 0): number {
    return this.#decoder.blocks.reduce((sum, { mixer }) => sum + mixer.stateSize(batch, position), 0);
  }

  /**
   * Replaces all weights, or none.
   * @throws WeightsError that lists every missing, unknown and misshapen name
   */
  loadWeights(weights: NamedArrays): void {
    checkWeights('CausalLM.loadWeights', this.weights, weights);
    for (const [name, variable] of this.weights)
      tf.tidy(() => variable.assign(tf.tensor((weights.get(name) as { data: Float32Array }).data, variable.shape)));
  }

  /** Frees all weights. */
  dispose(): void {
    for (const [, layer] of namedLayers(this.#decoder)) layer.dispose();
    if (!this.config.tieEmbeddings) this.#head.dispose();
  }

  #runBlocks(ids: tf.Tensor, state?: ModelState, cuSeqlens?: Int32Array): { x: tf.Tensor; state: ModelState } {
    return runLayers(this.#decoder, { from: 0, to: this.config.numLayers }, ids, state, cuSeqlens);
  }

  /** The blocks without their states. */
  #recomputedBlocks(ids: tf.Tensor, cuSeqlens?: Int32Array): tf.Tensor {
    let x = this.#decoder.embeddings.forward(ids).y;
    for (const block of this.#decoder.blocks) {
      const weights = Object.values(block).flatMap((layer) => [...layer.weightsByName().values()]);
      x = recomputed((x) => runBlock(block, x, undefined, cuSeqlens).y, x, weights);
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

/** Builds every layer with the model's start values and collects the weights in the order of `specs`. */
function buildWeights(
  decoder: Decoder,
  specs: ReadonlyMap<string, WeightSpec>,
  init: WeightInit,
): Map<string, tf.Variable> {
  const weights = new Map<string, tf.Variable>();
  for (const [prefix, layer] of namedLayers(decoder)) {
    layer.buildWith((name, spec) => init(`${prefix}.${name}`, spec));
    for (const [name, weight] of layer.weightsByName()) weights.set(`${prefix}.${name}`, weight);
  }
  const head = specs.get(HEAD);
  if (head)
    weights.set(
      HEAD,
      tf.tidy(() => tf.variable(tf.tensor(init(HEAD, head), head.shape))),
    );
  return weights;
}

function checkWeights(who: string, want: ReadonlyMap<string, { shape: number[] }>, got: NamedArrays): void {
  const names = [...want.keys()];
  const faults: [string, string[]][] = [
    ['missing', names.filter((name) => !got.has(name))],
    ['not of this model', [...got.keys()].filter((name) => !want.has(name))],
    ['of another shape', names.flatMap((name) => shapeFault(name, want.get(name)!.shape, got.get(name)))],
  ];
  const lines = faults
    .filter(([, list]) => list.length)
    .map(([fault, list]) => `  ${fault} (${list.length}): ${list.join(', ')}`);
  if (lines.length)
    throw new WeightsError(`${who}: the weights do not fit this model; nothing was loaded\n${lines.join('\n')}`);
}

function shapeFault(
  name: string,
  shape: number[],
  weight?: { shape: readonly number[]; data: Float32Array },
): string[] {
  if (!weight) return [];
  if (!tf.util.arraysEqual(shape, [...weight.shape])) return [`${name} must be [${shape}], got [${weight.shape}]`];
  const size = tf.util.sizeFromShape(shape);
  return weight.data.length === size ? [] : [`${name} must hold ${size} numbers, got ${weight.data.length}`];
}
