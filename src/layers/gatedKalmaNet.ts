/**
 * Gated KalmaNet (2025, https://arxiv.org/abs/2511.21016, Sec. 4): a fading memory that is fitted to its keys and values anew at each
 * token, by ridge regression. `H_t = exp(g_t) H_{t-1} + k_t k_t^T`, `U_t = exp(g_t) U_{t-1} + k_t v_t^T`,
 * `(H_t + ridgeRatio |H_t|_F I) x_t = q_t`, `o_t = D^-0.5 U_t^T (q_t + alpha_t (x_t - q_t))`; beside the paper, the published models
 * scale k and v by a write strength.
 */
import * as tf from '@tensorflow/tfjs';
import { checkOneOf } from '../chunked/check.js';
import { ridgeQueries } from '../chunked/gatedKalmaNet/run.js';
import { type GatedKalmaNetInputs, gatedKalmaNet, kdaGate } from '../chunked/index.js';
import {
  ConvolvedMixer,
  type Projected,
  type Projection,
  type ShortConvOptions,
  type Widths,
} from './convolvedMixer.js';
import { mergeHeads, normHeads, repeatHeads } from './heads.js';
import { expandHeads, expansionSpecs, type GroupedHeads } from './lowRankHeads.js';
import { logRate, stepBias } from './recurrentGates.js';
import type { ForwardOptions, LayerArgs, LayerOutput, LayerState, StateSpec, WeightSpec } from './seqLayer.js';
import { bias, matrix, normScale, withNorms } from './weightSpecs.js';

export interface GatedKalmaNetOptions extends ShortConvOptions {
  /** Channels D of a head of q, k and v, default 128. */
  headDim: number;
  /** Heads of q, default 16. The largest of the three numbers is that of all heads, which the others divide; neighbours share. */
  numHeads: number;
  /** Heads of k; null (default): numHeads. */
  numKHeads: number | null;
  /** Heads of v; null (default): numHeads. */
  numVHeads: number | null;
  /** Steps of the Chebyshev iteration, default 30; fewer are faster and less exact. 0: no solve, x = q. */
  numIterations: number;
  /** The ridge over the Frobenius norm of H, default 0.02: the condition number is then at most (ridgeRatio + 1) / ridgeRatio. */
  ridgeRatio: number;
  /** How the ridge regression is solved, default 'chebyshev'. */
  solver: 'chebyshev' | 'exact';
  /** Gradients also through the ridge, which depends on H; default true. */
  lambdaGradient: boolean;
  /** Convolution and SiLU also on v, default true; else v is the bare projection. */
  useVConv: boolean;
  /** Scale k and v by a write strength, default true. */
  useBetaGate: boolean;
  /** Mix x with q by a projection of the input, default true; else alpha = 1. */
  useAlphaConnection: boolean;
  /** Default true; else nothing is forgotten. */
  useForgettingGate: boolean;
  /** Let H forget as U does, default true. */
  useForgettingGateKk: boolean;
  /** Scale the output by headDim^-0.5 before its norm, default true. */
  useScale: boolean;
  /** Multiply the normed output by the SiLU of a projection of the input, default true. */
  useOutputGate: boolean;
  /** Rank of a map added to the k and v that heads share, so that they differ; null (default): none. */
  kvProjRank: number | null;
  /** Learn how heads share k and v, default false; needs kvProjRank. */
  kvLearnableResidual: boolean;
  /** Of the output norm, default 1e-6. */
  normEps: number;
  /** Tokens per chunk of the op's plain form; null (default): the op's own choice. */
  chunkSize: number | null;
  /** Form of the op, default 'auto'. */
  form: 'auto' | 'chunk' | 'recurrent';
  /** Together with the layer's name, the start of the weights where no model gives it; default 0. */
  seed: number;
}

const defaults: Omit<GatedKalmaNetOptions, 'hiddenSize'> = {
  headDim: 128,
  numHeads: 16,
  numKHeads: null,
  numVHeads: null,
  numIterations: 30,
  ridgeRatio: 0.02,
  solver: 'chebyshev',
  lambdaGradient: true,
  useShortConv: true,
  convSize: 4,
  convBias: false,
  useVConv: true,
  useBetaGate: true,
  useAlphaConnection: true,
  useForgettingGate: true,
  useForgettingGateKk: true,
  useScale: true,
  useOutputGate: true,
  kvProjRank: null,
  kvLearnableResidual: false,
  normEps: 1e-6,
  chunkSize: null,
  form: 'auto',
  linear: 'dense',
  seed: 0,
};

/** Added to the norms of q and k, and to a write strength. */
const EPS = 1e-6;
/** Below every square of interest: it keeps the root of a zero vector from an infinite slope. */
const TINY = 1e-24;

/**
 * [B, T, D] -> [B, T, D]; state `{ kk [B, H, headDim, headDim], kv [B, H, headDim, headDim] }`, the paper's H and its U transposed, with
 * short convolutions also `{ convQ, convK, convV [B, width, convSize] }`.
 */
export class GatedKalmaNet extends ConvolvedMixer<GatedKalmaNetOptions> {
  static readonly className: string = 'GatedKalmaNet';
  /** Heads of the op. */
  readonly #heads: number;

  /** @throws RangeError when an option is unknown or does not fit the others */
  constructor(args: LayerArgs<GatedKalmaNetOptions>) {
    super(args, defaults);
    const { numHeads, numKHeads, numVHeads } = this.options;
    this.requirePositive('headDim', 'numHeads', 'convSize');
    for (const name of ['numKHeads', 'numVHeads', 'kvProjRank', 'chunkSize'] as const)
      if (this.options[name] !== null) this.requirePositive(name);
    const counts = [numHeads, numKHeads ?? numHeads, numVHeads ?? numHeads];
    this.#heads = Math.max(...counts);
    this.require(
      counts.every((heads) => this.#heads % heads === 0),
      `numHeads, numKHeads and numVHeads must divide the largest of them, got ${counts.join(', ')}`,
    );
    this.#checkOptions();
  }

  #checkOptions(): void {
    const { numIterations, ridgeRatio, solver, kvProjRank, kvLearnableResidual, normEps, form } = this.options;
    const isCount = Number.isInteger(numIterations) && numIterations >= 0;
    this.require(isCount, `numIterations must be an integer >= 0, got ${numIterations}`);
    this.require(ridgeRatio > 0, `ridgeRatio must be positive, got ${ridgeRatio}`);
    checkOneOf('GatedKalmaNet', 'solver', solver, ['chebyshev', 'exact']);
    checkOneOf('GatedKalmaNet', 'form', form, ['auto', 'chunk', 'recurrent']);
    this.require(normEps > 0, `normEps must be positive, got ${normEps}`);
    const shared = this.#grouped('k').times > 1 || this.#grouped('v').times > 1;
    this.require(
      kvProjRank === null || shared,
      `kvProjRank sets apart heads that share k or v, but all ${this.#heads} heads have their own; leave it null`,
    );
    this.require(!kvLearnableResidual || kvProjRank !== null, 'kvLearnableResidual needs a kvProjRank, got null');
  }

  override weightSpecs(): Record<string, WeightSpec> {
    const { hiddenSize, headDim, kvProjRank, kvLearnableResidual } = this.options;
    const { useForgettingGate, useBetaGate, useAlphaConnection } = this.options;
    const H = this.#heads;
    const projections = Object.entries(this.#projections());
    const expansion = (name: 'k' | 'v') =>
      kvProjRank === null ? {} : expansionSpecs(name, this.#grouped(name), kvProjRank, kvLearnableResidual);
    const matrices = {
      ...Object.fromEntries(projections.map(([name, width]) => [`${name}.weight`, matrix(width, hiddenSize)])),
      'o_proj.weight': matrix(hiddenSize, H * headDim),
    };
    return {
      ...withNorms(this.options.linear, matrices),
      ...(useBetaGate && { 'b_proj.bias': bias(H, hiddenSize) }),
      ...(useAlphaConnection && { 'alpha_proj.bias': bias(H, hiddenSize) }),
      ...(useForgettingGate && { A_log: logRate(H, 0), dt_bias: stepBias(H) }),
      ...this.convSpecs(this.#convolved()),
      ...expansion('k'),
      ...expansion('v'),
      'o_norm.weight': normScale(headDim),
    };
  }

  /**
   * The ridge regressions that x leads to, without a past, for a look at how well they are solved. Inside a tidy of the caller.
   * @param x [B, T, hiddenSize]
   * @returns q, k, the solutions [B, T, H, headDim]; g [B, T, H], the log decays, and those of the covariance of the keys
   */
  regressions(x: tf.Tensor): Record<'q' | 'k' | 'solution' | 'g' | 'gKk', tf.Tensor> {
    const { q, k, g, alpha } = this.#inputs(this.projectAll(x, Object.keys(this.#projections())), undefined, {});
    const { o: solution } = ridgeQueries({ q, k, g, alpha: tf.onesLike(alpha) }, this.#opOptions());
    return { q, k, g, solution, gKk: this.options.useForgettingGateKk ? g : tf.zerosLike(g) };
  }

  protected override run(x: tf.Tensor, state: LayerState | undefined, { cuSeqlens }: ForwardOptions): LayerOutput {
    const { normEps: eps } = this.options;
    const next: LayerState = {};
    const projected = this.projectAll(x, Object.keys(this.#projections()));
    const inputs = this.#inputs(projected, state, next, cuSeqlens);
    const initialState = state && { kk: state.kk, kv: state.kv };
    const { o, finalState } = gatedKalmaNet({ ...inputs, initialState }, this.#opOptions(cuSeqlens));
    const norm = { weight: this.need('o_norm.weight'), gate: projected.g_proj };
    const normed = normHeads(o, norm, { eps, activation: 'silu' });
    const y = this.project(mergeHeads(normed), 'o_proj');
    return { y, state: { ...next, ...finalState } };
  }

  #opOptions(cuSeqlens?: Int32Array) {
    const { numIterations, ridgeRatio, solver, lambdaGradient, useForgettingGateKk, useScale } = this.options;
    const { headDim, chunkSize, form } = this.options;
    return {
      ...{ numIterations, ridgeRatio, solver, lambdaGradient, form, cuSeqlens },
      decayKk: useForgettingGateKk,
      scale: useScale ? headDim ** -0.5 : 1,
      chunkSize: chunkSize ?? undefined,
    };
  }

  /** What the op is given; states of the convolutions go into `next`. */
  #inputs(
    projected: Projected,
    state: LayerState | undefined,
    next: LayerState,
    cuSeqlens?: Int32Array,
  ): GatedKalmaNetInputs {
    const { useVConv } = this.options;
    const mix = (name: Projection) => this.mixLocally(name, projected[`${name}_proj`], state, next, cuSeqlens);
    const q = unit(repeatHeads(mix('q'), this.#grouped('q').heads, this.#grouped('q').times));
    const k = unit(this.#spread('k', mix('k')));
    const v = this.#spread('v', useVConv ? mix('v') : projected.v_proj);
    const [beta, alpha] = ['b_proj', 'alpha_proj'].map((name) => this.#sigmoid(name, projected));
    const write = beta && tf.expandDims(tf.add(beta, EPS), 3); // [B, T, H, 1]
    const scaled = (x: tf.Tensor) => (write ? tf.mul(x, write) : x);
    const perHead = [...q.shape.slice(0, 3)];
    return { q, k: scaled(k), v: scaled(v), g: this.#decay(projected, perHead), alpha: alpha ?? tf.ones(perHead) };
  }

  /** [B, T, G * D] -> [B, T, H, D]: each head of k or v to all that share it. */
  #spread(name: 'k' | 'v', x: tf.Tensor): tf.Tensor {
    const grouped = this.#grouped(name);
    if (this.options.kvProjRank === null) return repeatHeads(x, grouped.heads, grouped.times);
    return expandHeads(x, grouped, {
      down: this.need(`proj_${name}.linearA.weight`),
      up: this.need(`proj_${name}.linearB.weight`),
      mix: this.weight(`${name}_rep`),
    });
  }

  /** A number in (0, 1) per head, [B, T, H]; undefined where the options leave it out. */
  #sigmoid(name: string, projected: Projected): tf.Tensor | undefined {
    return projected[name] && tf.sigmoid(tf.add(projected[name], this.need(`${name}.bias`)));
  }

  /** Log decays [B, T, H]. */
  #decay({ a_proj }: Projected, shape: number[]): tf.Tensor {
    if (!a_proj) return tf.zeros(shape);
    const f = tf.expandDims(a_proj, 3); // one channel per head
    return tf.squeeze(kdaGate({ f, aLog: this.need('A_log'), dtBias: this.need('dt_bias') }), [3]);
  }

  protected override stateSpecs(batch: number): Record<string, StateSpec> {
    const { headDim } = this.options;
    const square = { shape: [batch, this.#heads, headDim, headDim] };
    return { kk: square, kv: square, ...this.convStates(batch, this.#convolved()) };
  }

  #grouped(name: Projection): GroupedHeads {
    const { numHeads, numKHeads, numVHeads, headDim } = this.options;
    const heads = { q: numHeads, k: numKHeads ?? numHeads, v: numVHeads ?? numHeads }[name];
    return { heads, times: this.#heads / heads, headDim };
  }

  #width(name: Projection): number {
    return this.#grouped(name).heads * this.options.headDim;
  }

  #convolved(): Partial<Widths> {
    return { q: this.#width('q'), k: this.#width('k'), ...(this.options.useVConv && { v: this.#width('v') }) };
  }

  /** Widths of what x is multiplied by, by name without `.weight`. */
  #projections(): Record<string, number> {
    const { useForgettingGate, useBetaGate, useAlphaConnection, useOutputGate, headDim } = this.options;
    const H = this.#heads;
    return {
      ...{ q_proj: this.#width('q'), k_proj: this.#width('k'), v_proj: this.#width('v') },
      ...(useForgettingGate && { a_proj: H }),
      ...(useBetaGate && { b_proj: H }),
      ...(useAlphaConnection && { alpha_proj: H }),
      ...(useOutputGate && { g_proj: H * headDim }),
    };
  }
}
tf.serialization.registerClass(GatedKalmaNet);

/** `x / (|x| + EPS)` over the last axis, as published: unlike `l2Norm`, the floor is added to the norm. */
function unit(x: tf.Tensor): tf.Tensor {
  const norm = tf.sqrt(tf.add(tf.sum(tf.square(x), -1, true), TINY));
  return tf.div(x, tf.add(norm, EPS));
}
