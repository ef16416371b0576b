/** What every model is to training, checkpoints and the command line: weights by name, and what is known of each. */
import * as tf from '@tensorflow/tfjs';
import type { SeqLayer, WeightInit, WeightSpec } from '../layers/index.js';

/** Float32 arrays by name: what `loadWeights` takes. */
export type NamedArrays = ReadonlyMap<string, { shape: readonly number[]; data: Float32Array }>;

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
   * @throws WeightsError as `loadWeights` does
   */
  protected constructor(
    readonly label: string,
    parts: ModelParts,
    init: WeightInit,
    given?: NamedArrays,
  ) {
    const specs = specsOf(parts);
    if (given) checkWeights(label, specs, given);
    const rates = (key: 'balanceRate' | 'runningRate' | 'learningRate') =>
      new Map([...specs].flatMap(([name, spec]) => (spec[key] === undefined ? [] : [[name, spec[key]] as const])));
    [this.balanceRates, this.runningRates, this.learningRates] = [
      rates('balanceRate'),
      rates('runningRate'),
      rates('learningRate'),
    ];
    this.#decayed = new Set([...specs].filter(([, spec]) => takesDecay(spec)).map(([name]) => name));
    this.#parts = parts;
    this.weights = buildWeights(parts, (name, spec) => given?.get(name)?.data ?? init(name, spec));
  }

  /** Numbers in all weights; a shared one counts once. */
  get numParameters(): number {
    return [...this.weights.values()].reduce((sum, { size }) => sum + size, 0);
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
    checkWeights(`${this.label}.loadWeights`, this.weights, weights);
    for (const [name, variable] of this.weights)
      tf.tidy(() => variable.assign(tf.tensor((weights.get(name) as { data: Float32Array }).data, variable.shape)));
  }

  /** Frees all weights. */
  dispose(): void {
    for (const [, layer] of this.#parts.layers) layer.dispose();
    for (const name of Object.keys(this.#parts.loose)) this.weights.get(name)?.dispose();
  }
}

/** Whether weight decay is for a weight. */
export const takesDecay = ({ kind, decays }: WeightSpec): boolean => decays ?? kind === 'matrix';

/** Builds every layer with its start values and collects the weights: those of the layers in their order, then the loose ones. */
function buildWeights({ layers, loose }: ModelParts, init: WeightInit): Map<string, tf.Variable> {
  const weights = new Map<string, tf.Variable>();
  for (const [prefix, layer] of layers) {
    layer.buildWith((name, spec) => init(`${prefix}.${name}`, spec));
    for (const [name, weight] of layer.weightsByName()) weights.set(`${prefix}.${name}`, weight);
  }
  for (const [name, spec] of Object.entries(loose))
    weights.set(
      name,
      tf.tidy(() => tf.variable(tf.tensor(init(name, spec), spec.shape))),
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
