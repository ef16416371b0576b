/** AdamW: Adam with decoupled weight decay (Loshchilov & Hutter 2017, https://arxiv.org/abs/1711.05101, algorithm 2). */
import * as tf from '@tensorflow/tfjs';
import { checkDtype, checkOneOf, checkShapes } from '../check.js';
import { isFused, type PlainForm } from '../form.js';
import { fusedNorms, fusedUpdate } from './fused.js';
import type { Coefficients, Moments, Rates } from './parameter.js';
import { plainNorms, plainUpdate } from './plain.js';

export { accumulate } from './accumulate.js';

export interface AdamWOptions {
  /**
   * Decay per step of the running mean of the gradient, and of its square. Default [0.9, 0.95], usual for language models (GPT-3,
   * Llama): the scale of a burst of large gradients is forgotten in 20 steps, not in the 1000 of PyTorch's default 0.999.
   */
  betas?: readonly [number, number];
  /** Added to the root of the mean square; default 1e-8. */
  eps?: number;
  form?: PlainForm;
}

/** What one weight does differently from the rest. */
export interface AdamWGroup {
  /** In place of the step's weightDecay. */
  weightDecay?: number;
  /** Multiplies the step's learningRate; default 1. */
  lrScale?: number;
}

export interface AdamWStep {
  learningRate: number;
  /** Each step takes learningRate * weightDecay of a weight away. */
  weightDecay: number;
  /** Gradients with a global norm above this are scaled to it exactly (PyTorch: to norm / (norm + 1e-6)); default: no clipping. */
  clipNorm?: number;
  /** Called with every weight's name. */
  groups?: (name: string) => AdamWGroup;
}

/** Everything that a resumed run needs. */
export interface AdamWState {
  /** Steps done. */
  step: number;
  /** Running mean of the gradient, by the weight's name. */
  m: Map<string, tf.Tensor>;
  /** Running mean of its square. */
  v: Map<string, tf.Tensor>;
}

/** A gradient is NaN or too large for float32: no weight was changed. */
export class NonFiniteGradientError extends RangeError {
  override readonly name = 'NonFiniteGradientError';
}

/** A square above this is no float32. */
const LARGEST_NORM = 1.8e19;

/**
 * m and v are running means of the gradient g and of g^2; with both divided by 1 - beta^t at step t (as PyTorch does),
 *
 *   w -= learningRate * (m / (sqrt(v) + eps) + weightDecay * w)
 *
 * On wasm one kernel call updates all weights and moments where they lie. A weight (or moment) whose memory another tensor shares,
 * such as a `tf.reshape` of it, moves to memory of its own first, so the other tensor keeps its values.
 */
export class AdamW {
  readonly #betas: readonly [number, number];
  readonly #eps: number;
  readonly #form: PlainForm;
  #step = 0;
  #moments = new Map<string, Moments>();

  /** @throws RangeError unless both betas are in [0, 1) and eps is positive */
  constructor({ betas = [0.9, 0.95], eps = 1e-8, form = 'auto' }: AdamWOptions = {}) {
    if (betas.length !== 2 || !betas.every((beta) => beta >= 0 && beta < 1))
      throw new RangeError(`AdamW: betas must be two numbers in [0, 1), got [${betas}]`);
    if (!(eps > 0 && eps < Number.POSITIVE_INFINITY))
      throw new RangeError(`AdamW: eps must be a positive number, got ${eps}`);
    checkOneOf('AdamW', 'form', form, ['auto', 'plain']);
    [this.#betas, this.#eps, this.#form] = [betas, eps, form];
  }

  /**
   * One update. A weight without a gradient is left alone, and so are its moments. Bias correction counts the steps of the
   * optimizer, also for a weight that gets its first gradient later.
   * @param weights by name, float32
   * @param grads by the same names; not disposed of
   * @returns the global norm of the gradients before clipping
   * @throws NonFiniteGradientError, or RangeError for a gradient of another shape, for moments (see `loadState`) that fit no weight, and
   * for options out of range; before any weight or moment is touched
   */
  async step(
    weights: ReadonlyMap<string, tf.Variable>,
    grads: Record<string, tf.Tensor>,
    options: AdamWStep,
  ): Promise<{ gradNorm: number }> {
    checkStep(options);
    this.#checkMoments(weights);
    const given = Object.entries(grads);
    for (const [name, gradient] of given) checkGradient(name, weights.get(name), gradient);
    const rates = new Map(given.map(([name]) => [name, ratesOf(name, options)]));
    const fused = isFused('AdamW', this.#form);
    const norms = await (fused ? fusedNorms : plainNorms)(given.map(([, gradient]) => gradient));
    for (const [i, norm] of norms.entries()) checkNorm(given[i][0], norm);
    const gradNorm = Math.hypot(...norms);
    this.#step += 1;
    const parameters = given.map(([name, gradient]) => {
      const weight = weights.get(name) as tf.Variable;
      return { weight, gradient, moments: this.#momentsOf(name, weight), ...(rates.get(name) as Rates) };
    });
    (fused ? fusedUpdate : plainUpdate)(parameters, this.#coefficients(gradNorm, options.clipNorm));
    return { gradNorm };
  }

  /** The tensors themselves, not copies: they are the optimizer's and good until its next call. */
  state(): AdamWState {
    const all = [...this.#moments];
    return {
      step: this.#step,
      m: new Map(all.map(([name, { m }]) => [name, m])),
      v: new Map(all.map(([name, { v }]) => [name, v])),
    };
  }

  /**
   * Goes on from a saved state, whose tensors are the optimizer's from now on. The next step checks them against the weights.
   * @throws RangeError when m and v differ in names or shapes, a tensor comes twice, or `step` is no count; nothing is taken over then
   */
  loadState({ step, m, v }: AdamWState): void {
    if (!Number.isSafeInteger(step) || step < 0)
      throw new RangeError(`AdamW.loadState: step must be an integer >= 0, got ${step}`);
    const alone = [...m.keys()].find((name) => !v.has(name)) ?? [...v.keys()].find((name) => !m.has(name));
    if (alone !== undefined)
      throw new RangeError(`AdamW.loadState: m and v must have the same names, got '${alone}' in one of them only`);
    const moments = new Map([...m].map(([name, mean]) => [name, { m: mean, v: v.get(name) as tf.Tensor }]));
    for (const [name, pair] of moments) {
      checkDtype('AdamW.loadState', { [`m of '${name}'`]: pair.m, [`v of '${name}'`]: pair.v });
      checkShapes('AdamW.loadState', { [`v of '${name}'`]: [pair.v, pair.m.shape] });
    }
    const taken = new Set([...m.values(), ...v.values()]);
    if (taken.size < 2 * moments.size)
      throw new RangeError('AdamW.loadState: every m and v must be a tensor of its own, got one twice; clone it');
    for (const old of this.#tensors()) if (!taken.has(old)) old.dispose();
    for (const tensor of taken) tf.keep(tensor);
    [this.#step, this.#moments] = [step, moments];
  }

  /** Frees the moments; the optimizer is as new then. */
  dispose(): void {
    tf.dispose(this.#tensors());
    this.#moments.clear();
    this.#step = 0;
  }

  #tensors(): tf.Tensor[] {
    return [...this.#moments.values()].flatMap(({ m, v }) => [m, v]);
  }

  #checkMoments(weights: ReadonlyMap<string, tf.Variable>): void {
    for (const [name, { m }] of this.#moments) {
      const weight = weights.get(name);
      if (!weight)
        throw new RangeError(
          `AdamW.step: there are moments for '${name}', which is no weight; was the state of another model loaded?`,
        );
      checkShapes('AdamW.step', { [`the moments of '${name}'`]: [m, weight.shape] });
    }
  }

  #momentsOf(name: string, weight: tf.Variable): Moments {
    let moments = this.#moments.get(name);
    if (!moments) {
      moments = { m: tf.keep(tf.zeros(weight.shape)), v: tf.keep(tf.zeros(weight.shape)) };
      this.#moments.set(name, moments);
    }
    return moments;
  }

  #coefficients(gradNorm: number, clipNorm = Number.POSITIVE_INFINITY): Coefficients {
    const [beta1, beta2] = this.#betas;
    return {
      gradScale: gradNorm > clipNorm ? clipNorm / gradNorm : 1,
      ...{ beta1, beta2, eps: this.#eps },
      mScale: 1 / (1 - beta1 ** this.#step),
      vScale: (1 - beta2 ** this.#step) ** -0.5,
    };
  }
}

/** The step's options with those of the weight's group. */
function ratesOf(name: string, { learningRate, weightDecay, groups }: AdamWStep): Rates {
  const { weightDecay: decay = weightDecay, lrScale = 1 } = groups?.(name) ?? {};
  checkSize(`weightDecay of the group of '${name}'`, decay);
  checkSize(`lrScale of the group of '${name}'`, lrScale);
  return { learningRate: learningRate * lrScale, decay };
}

function checkStep({ learningRate, weightDecay, clipNorm }: AdamWStep): void {
  checkSize('learningRate', learningRate);
  checkSize('weightDecay', weightDecay);
  if (clipNorm !== undefined && !(clipNorm > 0))
    throw new RangeError(
      `AdamW.step: clipNorm must be a positive number, got ${clipNorm}; leave it out for no clipping`,
    );
}

function checkSize(name: string, value: number): void {
  if (!(value >= 0 && value < Number.POSITIVE_INFINITY))
    throw new RangeError(`AdamW.step: ${name} must be zero or a positive number, got ${value}`);
}

function checkGradient(name: string, weight: tf.Variable | undefined, gradient: tf.Tensor): void {
  if (!weight) throw new RangeError(`AdamW.step: there is a gradient for '${name}', which is no weight`);
  const [ofWeight, ofGradient] = [`'${name}'`, `the gradient of '${name}'`];
  checkDtype('AdamW.step', { [ofWeight]: weight, [ofGradient]: gradient });
  checkShapes('AdamW.step', { [ofGradient]: [gradient, weight.shape] });
}

function checkNorm(name: string, norm: number): void {
  if (norm < LARGEST_NORM) return;
  throw new NonFiniteGradientError(
    `AdamW.step: the gradient of '${name}' must be finite, with a norm below ${LARGEST_NORM.toExponential()}, got a norm of ${norm.toExponential(2)}; no weight was changed. Lower the learning rate, or look for the first NaN in the forward pass`,
  );
}
