/** The contract of every layer here: a `tf.layers.Layer` whose `forward` takes a state in and gives a state out. */
import * as tf from '@tensorflow/tfjs';
import { checkCuSeqlens, checkDtype, checkOneOf, checkShapes } from '../chunked/check.js';
import { bitLinear, linear, linearAll, type PackedWeight, packedBitLinear, packedWeight } from '../chunked/index.js';
import type { PackedMatrix } from '../formats/ternary.js';
import { Rng } from '../rng.js';

/** What a layer remembers of the past: named tensors, owned by the caller. */
export type LayerState = Record<string, tf.Tensor>;

export interface ForwardOptions {
  /** Packed documents: offsets `[0, n1, n1 + n2, ..., T]`; needs B = 1. States then hold one entry per document. */
  cuSeqlens?: Int32Array;
  /** Given in training only: dropout draws its masks from it and batch norm takes the statistics of the batch. */
  training?: Rng;
  /** Tokens of each row where rows are padded at their ends, [B]: given to layers that read in both directions, some of which must not see the padding. */
  lengths?: Int32Array;
  /** Time since the position before, [B, T], in steps of training data; default all 1. Only of layers that know time (S5). */
  intervals?: tf.Tensor;
}

export interface LayerOutput {
  /** [B, T, D] */
  y: tf.Tensor;
  /** The state after the last token. */
  state: LayerState;
}

/** A trainable weight: its shape in the layout of published checkpoints ([out, in]) and how it starts. */
export interface WeightSpec {
  shape: number[];
  /** Matrices (and convolution taps, embeddings) take weight decay; norms, biases and `other` do not. */
  kind: 'matrix' | 'bias' | 'norm' | 'other';
  /** How many inputs one output sums over; the stand-alone start is uniform within +-1/sqrt(fanIn). */
  fanIn?: number;
  /** Multiplied by `bitLinear`, with the norm that stands beside it: it may be packed. */
  ternary?: boolean;
  /** A start of its own, stand-alone and inside a model. */
  init?: (rng: Rng, size: number) => Float32Array;
  /** The share of it that one token uses; default 1. */
  active?: number;
  /**
   * No optimizer's business: its gradient slot holds a surplus of load, and after each step it moves by this much against the sign of it.
   * Surpluses are counts: they are summed, not averaged.
   */
  balanceRate?: number;
  /** Peak learning rate of its own in place of the run's, on the same schedule, where that is smaller; 0 freezes it. */
  learningRate?: number;
  /** Drawn once and stored with the weights: no gradient is made on it, nothing moves it (goes with `learningRate: 0`). */
  constant?: boolean;
  /** Takes weight decay or not, whatever its kind. */
  decays?: boolean;
  /**
   * No optimizer's business: its gradient slot holds a statistic of the batch, and after each step w += runningRate * (statistic - w).
   * Statistics of micro-batches and workers are averaged.
   */
  runningRate?: number;
}

/** Shape and dtype (default float32) of one tensor of a state. */
export interface StateSpec {
  shape: number[];
  dtype?: 'int32';
}

/** Start value of a weight. */
export type WeightInit = (name: string, spec: WeightSpec) => Float32Array;

/** The packed form of a ternary weight, or undefined where it is not packed. */
export type PackedStart = (name: string) => PackedMatrix | undefined;

/** Arguments every TensorFlow.js layer takes (`name`, `inputShape`, `trainable`, ...). */
export type TfLayerArgs = NonNullable<ConstructorParameters<typeof tf.layers.Layer>[0]>;

/** Options of one of our layers as given: all but `hiddenSize` have defaults. */
export type LayerArgs<O extends { hiddenSize: number }> = TfLayerArgs &
  Partial<Omit<O, 'hiddenSize'>> &
  Pick<O, 'hiddenSize'>;

/** `customObjects` is what `tf.loadLayersModel` adds to a config. */
const TF_ARGS = [
  'inputShape',
  'batchInputShape',
  'batchSize',
  'dtype',
  'name',
  'trainable',
  'weights',
  'inputDType',
  'customObjects',
];

/** Shape of a layer's input, of one sample or of one of several inputs, as TensorFlow.js hands it to `build`. */
type BuildShape = (number | null)[] | (number | null)[][];

/**
 * Base of all layers. A subclass gives `weightSpecs`, `run` and the sizes of its state; this class gives weights, start values,
 * building on first use, and everything `tf.model` needs (`call`, `getConfig`, saving and loading).
 */
export abstract class SeqLayer<O extends { hiddenSize: number } = { hiddenSize: number }> extends tf.layers.Layer {
  /** All options, defaults filled in; JSON-safe. */
  readonly options: Readonly<O>;
  readonly #variables = new Map<string, tf.Variable>();
  readonly #packed = new Map<string, PackedWeight>();
  #init: WeightInit | undefined;
  #given: PackedStart | undefined;
  #onlyBuild = false;

  protected constructor(args: LayerArgs<O>, defaults: Omit<O, 'hiddenSize'>) {
    super(args);
    this.options = this.#resolve(args, defaults);
    this.requirePositive('hiddenSize' as keyof O & string);
    const { linear = 'dense' } = this.options as { linear?: 'dense' | 'bit' };
    checkOneOf(this.getClassName(), 'linear', linear, ['dense', 'bit']);
  }

  /** Every weight by its name in published checkpoints. Known from the options alone: nothing is allocated. */
  abstract weightSpecs(): Record<string, WeightSpec>;

  /** Bytes of the state of `batch` sequences that have read `position` tokens (default 0); 0 for a layer without state. */
  stateSize(batch: number, position = 0): number {
    const sizes = Object.values(this.stateSpecs(batch, position)).map(({ shape }) => tf.util.sizeFromShape(shape));
    return sizes.reduce((bytes, size) => bytes + 4 * size, 0);
  }

  /** The state before the first token; `forward` without a state starts from the same. The caller owns it. */
  initialState(batch: number): LayerState {
    const specs = Object.entries(this.stateSpecs(batch, 0));
    return Object.fromEntries(specs.map(([name, { shape, dtype }]) => [name, tf.zeros(shape, dtype)]));
  }

  /** The mathematics, inside a tidy, after the checks. */
  protected abstract run(x: tf.Tensor, state: LayerState | undefined, options: ForwardOptions): LayerOutput;

  /**
   * State in, state out: this one method trains, prefills a prompt in pieces and decodes one token.
   * @param x [B, T, D]
   * @param state from an earlier call; that of no tokens if absent. It is not disposed
   * @throws RangeError when x or the state does not fit the layer
   */
  forward(x: tf.Tensor, state?: LayerState, options: ForwardOptions = {}): LayerOutput {
    if (!this.built) this.buildWith(undefined, x);
    this.checkInput(x.shape);
    if (x.size === 0) throw new RangeError(`${this.label}: input must hold a token, got [${x.shape}]`);
    const { cuSeqlens } = options;
    checkCuSeqlens(this.label, cuSeqlens, x.shape[0], x.shape[1] as number);
    if (state) this.#checkState(state, cuSeqlens ? cuSeqlens.length - 1 : x.shape[0]);
    return tf.tidy(() => this.run(x, state, options) as unknown as tf.TensorContainerObject) as unknown as LayerOutput;
  }

  override call(inputs: tf.Tensor | tf.Tensor[]): tf.Tensor {
    const x = Array.isArray(inputs) ? inputs[0] : inputs;
    return this.#onlyBuild ? x : tf.tidy(() => this.forward(x).y);
  }

  /** All weights by their names in published checkpoints, in the order of `weightSpecs`. Builds the layer if need be. */
  weightsByName(): Map<string, tf.Variable> {
    if (!this.built) this.buildWith();
    return new Map(this.#variables);
  }

  /** The ternary matrices that are packed, by their names in published checkpoints; they are no weights of TensorFlow.js. */
  packedByName(): ReadonlyMap<string, PackedWeight> {
    return this.#packed;
  }

  /**
   * Creates the weights now, with the given start values; without them each is seeded uniform (see `WeightSpec.fanIn`).
   * @param packed ternary matrices to keep packed, for inference; undefined for a name that is not
   */
  buildWith(init?: WeightInit, x?: tf.Tensor, packed?: PackedStart): void {
    if (this.built) throw new Error(`${this.label}: is already built; give start values before its first use`);
    [this.#init, this.#given] = [init, packed];
    this.#onlyBuild = true;
    try {
      // `apply` is the only way into TensorFlow.js' name scope, which makes the weights' names unique when a model is saved.
      tf.tidy(() => void this.apply(x ?? this.buildInput()));
    } finally {
      this.#onlyBuild = false;
      [this.#init, this.#given] = [undefined, undefined];
    }
  }

  override build(inputShape: BuildShape): void {
    this.checkInput((Array.isArray(inputShape[0]) ? inputShape[0] : inputShape) as (number | null)[]);
    const init = this.#init ?? this.#standaloneInit();
    for (const [name, spec] of Object.entries(this.weightSpecs())) {
      const packed = spec.ternary && this.#given?.(name);
      if (packed) {
        this.#packed.set(name, keepPacked(packed));
        continue;
      }
      const initializer = { apply: () => tf.tensor(init(name, spec), spec.shape, 'float32') };
      const start = initializer as unknown as AddWeightInitializer;
      const weight = this.addWeight(name, spec.shape, 'float32', start, undefined, spec.constant !== true);
      this.#variables.set(name, weight.read() as tf.Variable);
    }
    super.build(inputShape as Parameters<tf.layers.Layer['build']>[0]);
  }

  override computeOutputShape(inputShape: BuildShape): (number | null)[] {
    return (Array.isArray(inputShape[0]) ? inputShape[0] : inputShape) as (number | null)[];
  }

  protected override disposeWeights(): number {
    for (const { data, scale } of this.#packed.values()) tf.dispose([data, scale]);
    return super.disposeWeights();
  }

  override getConfig(): tf.serialization.ConfigDict {
    return { ...super.getConfig(), ...(this.options as unknown as tf.serialization.ConfigDict) };
  }

  /** A weight by its checkpoint name; undefined for one these options leave out. */
  protected weight(name: string): tf.Variable | undefined {
    return this.#variables.get(name);
  }

  /** A weight that is always there. */
  protected need(name: string): tf.Variable {
    const found = this.#variables.get(name);
    if (!found) throw new Error(`${this.label}: has no weight "${name}"`);
    return found;
  }

  /** x [B, T, I] times the matrix `name`.weight [O, I], by ternary weights where it has a norm, plus `name`.bias where there is one. */
  protected project(x: tf.Tensor, name: string): tf.Tensor {
    const [bias, norm] = [this.weight(`${name}.bias`), this.#normOf(name)];
    if (!norm) return linear({ x, weight: this.need(`${name}.weight`), bias });
    const y = this.#ternary(x, name, norm);
    return bias ? tf.add(y, bias) : y;
  }

  /** x times each matrix of `names`, which leave out `.weight`; biases are left to the caller. */
  protected projectAll(x: tf.Tensor, names: readonly string[]): Record<string, tf.Tensor> {
    const outputs = this.#normOf(names[0])
      ? names.map((name) => this.#ternary(x, name, this.#normOf(name)))
      : linearAll({ x, weights: names.map((name) => this.need(`${name}.weight`)) });
    return Object.fromEntries(names.map((name, i) => [name, outputs[i]]));
  }

  #ternary(x: tf.Tensor, name: string, norm: tf.Tensor | undefined): tf.Tensor {
    const weight = this.#packed.get(`${name}.weight`);
    return weight ? packedBitLinear({ x, weight, norm }) : bitLinear({ x, weight: this.need(`${name}.weight`), norm });
  }

  #normOf(name: string): tf.Variable | undefined {
    return this.weight(`${name}.norm.weight`);
  }

  protected checkInput(shape: (number | null)[]): void {
    const width = this.options.hiddenSize;
    if (shape.length !== 3 || shape[2] !== width)
      throw new RangeError(`${this.label}: input must have shape [B,T,${width}], got [${shape.map((n) => n ?? '*')}]`);
  }

  /** Any input that fits, to build with. */
  protected buildInput(): tf.Tensor {
    return tf.zeros([1, 1, this.options.hiddenSize]);
  }

  /** Class and layer name, to begin an error with. */
  protected get label(): string {
    return `${this.getClassName()} "${this.name}"`;
  }

  /** Throws a RangeError about the options unless `condition` holds. */
  protected require(condition: boolean, message: string): void {
    if (!condition) throw new RangeError(`${this.getClassName()}: ${message}`);
  }

  /** Throws a RangeError unless every named option is a positive integer. */
  protected requirePositive(...names: (keyof O & string)[]): void {
    for (const name of names) {
      const value = this.options[name];
      this.require(Number.isInteger(value) && Number(value) > 0, `${name} must be a positive integer, got ${value}`);
    }
  }

  #resolve(args: LayerArgs<O>, defaults: Omit<O, 'hiddenSize'>): O {
    const options: Record<string, unknown> = { hiddenSize: undefined, ...defaults };
    for (const [name, value] of Object.entries(args ?? {})) {
      if (TF_ARGS.includes(name)) continue;
      const known = name in options;
      this.require(known, `unknown option "${name}"; the options are ${Object.keys(options).join(', ')}`);
      if (value !== undefined) options[name] = value;
    }
    return options as O;
  }

  #checkState(state: LayerState, sequences: number): void {
    const list = (names: string[]) => names.sort().join(', ') || 'nothing';
    const [want, got] = [Object.keys(this.stateSpecs(1, 0)), Object.keys(state)].map(list);
    if (want !== got) throw new RangeError(`${this.label}: its state must hold ${want}, got ${got}`);
    for (const [name, spec] of Object.entries(this.stateSpecs(sequences, this.positionOf(state)))) {
      checkDtype(this.label, { [`state.${name}`]: state[name] }, spec.dtype);
      checkShapes(this.label, { [`state.${name}`]: [state[name], spec.shape] });
    }
  }

  /** The tensors in the state of `batch` sequences after `position` tokens; none by default. */
  protected stateSpecs(_batch: number, _position: number): Record<string, StateSpec> {
    return {};
  }

  /** Tokens behind a state; only a layer whose state grows need tell. */
  protected positionOf(_state: LayerState): number {
    return 0;
  }

  #standaloneInit(): WeightInit {
    const seed = (this.options as { seed?: number }).seed ?? 0;
    const rng = new Rng(seed).split(this.name);
    return (name, spec) => {
      const size = tf.util.sizeFromShape(spec.shape);
      if (spec.init) return spec.init(rng.split(name), size);
      if (spec.kind === 'norm') return new Float32Array(size).fill(1);
      const bound = (spec.fanIn ?? spec.shape[spec.shape.length - 1]) ** -0.5;
      return rng.split(name).uniformArray(size, -bound, bound);
    };
  }
}

/** A packed weight that outlives the tidy it is made in. */
export function keepPacked(matrix: PackedMatrix): PackedWeight {
  const weight = tf.tidy(() => packedWeight(matrix) as unknown as tf.TensorContainerObject) as unknown as PackedWeight;
  tf.keep(weight.data);
  tf.keep(weight.scale);
  return weight;
}

type AddWeightInitializer = Parameters<tf.layers.Layer['addWeight']>[3];
