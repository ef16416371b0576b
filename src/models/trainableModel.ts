/** What every model is to training, checkpoints and the command line: weights by name, and what is known of each. */
import * as tf from '@tensorflow/tfjs';
import type { PackedWeight } from '../chunked/index.js';
import type { PackedMatrix } from '../formats/ternary.js';
import type { SeqLayer, WeightInit, WeightSpec } from '../layers/index.js';
import { keepPacked } from '../layers/seqLayer.js';

/** Float32 arrays by name: what `loadWeights` takes. */
export type NamedArrays = ReadonlyMap<string, { shape: readonly number[]; data: Float32Array }>;

/** Packed ternary matrices by name. */
export type PackedArrays = ReadonlyMap<string, PackedMatrix>;

/** The weights do not fit the model: nothing was loaded. */
export class WeightsError extends Error {
  override readonly name = 'WeightsError';
}

/** The layers of a model with the prefixes of their weights' names, and weights that are of no layer. */
export interface ModelParts {
  layers: readonly [prefix: string, layer: SeqLayer][];
  loose: Readonly<Record<string, WeightSpec>>;
}

/** What every weight of the parts is, by its name in checkpoints. Nothing is allocated. */
export function specsOf({ layers, loose }: ModelParts): Map<string, WeightSpec> {
  const specs = layers.flatMap(([prefix, layer]) =>
    Object.entries(layer.weightSpecs()).map(([name, spec]) => [`${prefix}.${name}`, spec] as const),
  );
  return new Map([...specs, ...Object.entries(loose)]);
}

export abstract class TrainableModel {
  /** All weights by their names in checkpoints. */
  readonly weights: ReadonlyMap<string, tf.Variable>;
  /** Ternary matrices that are packed, by their names in checkpoints: of a model that is for inference only, which has no others. */
  readonly packed: ReadonlyMap<string, PackedWeight>;
  /** Weights that no optimizer moves, and their rates: their "gradients" are surpluses of load (see `WeightSpec.balanceRate`). */
  readonly balanceRates: ReadonlyMap<string, number>;
  /** Weights that no optimizer moves, and their rates: their "gradients" are statistics of a batch (see `WeightSpec.runningRate`). */
  readonly runningRates: ReadonlyMap<string, number>;
  /** Peak learning rates of weights that have one of their own (see `WeightSpec.learningRate`); 0: frozen. */
  readonly learningRates: ReadonlyMap<string, number>;
  readonly #decayed: ReadonlySet<string>;
  readonly #parts: ModelParts;

  /**
   * Builds every layer.
   * @param label who speaks in errors
   * @param given start from these weights; else from `init`
   * @param packed all ternary matrices, to be kept packed; `given` is then of the others
   * @throws WeightsError as `loadWeights` does
   */
  protected constructor(
    readonly label: string,
    parts: ModelParts,
    init: WeightInit,
    given?: NamedArrays,
    packed?: PackedArrays,
  ) {
    const specs = specsOf(parts);
    if (packed) checkPacked(label, specs, packed);
    const floats = new Map([...specs].filter(([name]) => !packed?.has(name)));
    if (given) checkWeights(label, floats, given);
    const rates = (key: 'balanceRate' | 'runningRate' | 'learningRate') =>
      new Map([...specs].flatMap(([name, spec]) => (spec[key] === undefined ? [] : [[name, spec[key]] as const])));
    [this.balanceRates, this.runningRates, this.learningRates] = [
      rates('balanceRate'),
      rates('runningRate'),
      rates('learningRate'),
    ];
    this.#decayed = new Set([...specs].filter(([, spec]) => takesDecay(spec)).map(([name]) => name));
    this.#parts = parts;
    const start: WeightInit = (name, spec) => given?.get(name)?.data ?? init(name, spec);
    [this.weights, this.packed] = buildWeights(parts, start, packed);
  }

  /** Numbers in all weights; a shared one counts once. */
  get numParameters(): number {
    const packed = [...this.packed.values()].reduce((sum, { shape: [rows, columns] }) => sum + rows * columns, 0);
    return packed + [...this.weights.values()].reduce((sum, { size }) => sum + size, 0);
  }

  /** True for the weights that weight decay should leave alone: norms, biases and gates' constants. */
  noDecay(name: string): boolean {
    return !this.#decayed.has(name);
  }

  /** True for the weights that the optimizer moves. */
  isOptimized(name: string): boolean {
    return !this.balanceRates.has(name) && !this.runningRates.has(name) && this.learningRates.get(name) !== 0;
  }

  /**
   * Replaces all weights, or none.
   * @throws WeightsError that lists every missing, unknown and misshapen name
   */
  loadWeights(weights: NamedArrays): void {
    if (this.packed.size)
      throw new WeightsError(
        `${this.label}.loadWeights: the weights of a packed model stay as they are; make another model`,
      );
    checkWeights(`${this.label}.loadWeights`, this.weights, weights);
    for (const [name, variable] of this.weights)
      tf.tidy(() => variable.assign(tf.tensor((weights.get(name) as { data: Float32Array }).data, variable.shape)));
  }

  /** Frees all weights. */
  dispose(): void {
    for (const [, layer] of this.#parts.layers) layer.dispose();
    for (const name of Object.keys(this.#parts.loose)) {
      const { data, scale } = this.packed.get(name) ?? {};
      tf.dispose([this.weights.get(name), data, scale]);
    }
  }
}

/** Whether weight decay is for a weight. */
export const takesDecay = ({ kind, decays }: WeightSpec): boolean => decays ?? kind === 'matrix';

/** Builds every layer with its start values and collects the weights: those of the layers in their order, then the loose ones. */
function buildWeights(
  { layers, loose }: ModelParts,
  init: WeightInit,
  given?: PackedArrays,
): [weights: Map<string, tf.Variable>, packed: Map<string, PackedWeight>] {
  const weights = new Map<string, tf.Variable>();
  const packed = new Map<string, PackedWeight>();
  for (const [prefix, layer] of layers) {
    buildLayer(prefix, layer, init, given);
    for (const [name, weight] of layer.weightsByName()) weights.set(`${prefix}.${name}`, weight);
    for (const [name, weight] of layer.packedByName()) packed.set(`${prefix}.${name}`, weight);
  }
  for (const [name, spec] of Object.entries(loose)) {
    const matrix = given?.get(name);
    if (matrix) packed.set(name, keepPacked(matrix));
    else
      weights.set(
        name,
        tf.tidy(() => tf.variable(tf.tensor(init(name, spec), spec.shape))),
      );
  }
  return [weights, packed];
}

/** @param init start values by full name @param packed by full name */
export function buildLayer(prefix: string, layer: SeqLayer, init: WeightInit, packed?: PackedArrays): void {
  const full = (name: string) => `${prefix}.${name}`;
  layer.buildWith(
    (name, spec) => init(full(name), spec),
    undefined,
    (name) => packed?.get(full(name)),
  );
}

/** All ternary matrices, and no other. */
function checkPacked(who: string, specs: ReadonlyMap<string, WeightSpec>, packed: PackedArrays): void {
  const ternary = new Map([...specs].filter(([, spec]) => spec.ternary));
  const misshapen = [...packed].flatMap(([name, { shape }]) => {
    const want = ternary.get(name)?.shape;
    return want && !tf.util.arraysEqual(want, shape) ? [`${name} must be [${want}], got [${shape}]`] : [];
  });
  throwFaults(who, [
    ['missing among the packed', [...ternary.keys()].filter((name) => !packed.has(name))],
    ['packed, but no ternary weight of this model', [...packed.keys()].filter((name) => !ternary.has(name))],
    ['packed of another shape', misshapen],
  ]);
}

function checkWeights(who: string, want: ReadonlyMap<string, { shape: number[] }>, got: NamedArrays): void {
  const names = [...want.keys()];
  throwFaults(who, [
    ['missing', names.filter((name) => !got.has(name))],
    ['not of this model', [...got.keys()].filter((name) => !want.has(name))],
    ['of another shape', names.flatMap((name) => shapeFault(name, want.get(name)!.shape, got.get(name)))],
  ]);
}

function throwFaults(who: string, faults: [fault: string, names: string[]][]): void {
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
