/**
 * The token mixer of MatMul-free language models (Zhu et al. 2024, https://arxiv.org/abs/2406.02528, Sec. 3.3.1), an HGRN
 * (Qin et al. 2023, https://arxiv.org/abs/2311.04823) of ternary weights: nothing but sums, and products by element.
 *
 *   f = bound + (1 - bound) sigmoid(f_proj x);   h_t = f_t h_{t-1} + (1 - f_t) silu(i_proj x_t)
 *   y = o_proj(rmsNorm(g_proj x) * g_norm * silu(h))
 */
import * as tf from '@tensorflow/tfjs';
import { checkOneOf } from '../chunked/check.js';
import { gatedRmsNorm, linearScan, mlgruGate } from '../chunked/index.js';
import { ConvolvedMixer, type ShortConvOptions } from './convolvedMixer.js';
import {
  type ForwardOptions,
  type LayerArgs,
  type LayerOutput,
  type LayerState,
  SeqLayer,
  type StateSpec,
  type WeightSpec,
} from './seqLayer.js';
import { matrix, normScale, withNorms, xavierUniform, zeros } from './weightSpecs.js';

/** A matrix [out, in] that starts as published: Xavier uniform with gain 2^-2.5 (https://github.com/ridgerchu/matmulfreellm). */
const projection = (out: number, fanIn: number): WeightSpec => xavierUniform(matrix(out, fanIn), 2 ** -2.5);

export interface MLGRUOptions extends ShortConvOptions {
  /** Model width D. */
  hiddenSize: number;
  /** Width of the state over D, default 1; `hiddenSize * expandRatio` must be an integer. */
  expandRatio: number;
  /** Number of the layer in its model, from 0; with `numLayers` it gives the lower bound. Default 0. */
  layerIndex: number;
  /** Layers that share `lower_bounds`; 0 (default): there is none, and no lower bound. */
  numLayers: number;
  /** `bit` (default): as published, every projection is a `bitLinear`; `dense`: in full precision, to compare with. */
  linear: 'dense' | 'bit';
  /** Of the norm of the output gate, default 1e-6. */
  normEps: number;
  /** Short causal convolution and SiLU, see `shareConvKernel`; default false. */
  useShortConv: boolean;
  /** Taps of the convolution, default 4. */
  convSize: number;
  /** Default false. */
  convBias: boolean;
  /** true (default): one convolution, `h_conv1d`, of the layer's input; false: one of each projection i and f (`i_conv1d`, `f_conv1d`). */
  shareConvKernel: boolean;
  /** Form of the op, default 'auto'. */
  form: 'auto' | 'chunk' | 'scan' | 'recurrent';
  /** Together with the layer's name, the start of the weights: projections Xavier uniform with gain 2^-2.5, inside a model too; default 0. */
  seed: number;
}

/**
 * [B, T, D] -> [B, T, D]; state `{ recurrent [B, D * expandRatio] }`, with the short convolution also its last inputs (`convH`, or `convI`
 * and `convF`). Unless `dense`, every projection is a `bitLinear` with a norm of its own.
 *
 * With `numLayers` all layers but the first (0) have `lower_bounds` [numLayers, D * expandRatio]; with p = softmax(lower_bounds) over the
 * layers, layer l keeps at least p_1 + ... + p_l of its state: the deeper a layer, the longer its memory.
 */
export class MLGRU extends ConvolvedMixer<MLGRUOptions> {
  static readonly className: string = 'MLGRU';
  #shared: LowerBounds | undefined;

  /** @throws RangeError when an option is unknown or does not fit the others */
  constructor(args: LayerArgs<MLGRUOptions>) {
    super(args, {
      expandRatio: 1,
      layerIndex: 0,
      numLayers: 0,
      linear: 'bit',
      normEps: 1e-6,
      useShortConv: false,
      convSize: 4,
      convBias: false,
      shareConvKernel: true,
      form: 'auto',
      seed: 0,
    });
    this.requirePositive('convSize');
    const { hiddenSize, expandRatio, layerIndex, numLayers, normEps } = this.options;
    const isCount = (n: number) => Number.isInteger(n) && n >= 0;
    this.require(
      expandRatio > 0 && Number.isInteger(hiddenSize * expandRatio),
      `hiddenSize * expandRatio must be a positive integer, got ${hiddenSize} * ${expandRatio}`,
    );
    this.require(isCount(numLayers), `numLayers must be zero or a positive integer, got ${numLayers}`);
    this.require(
      isCount(layerIndex) && (numLayers === 0 || layerIndex < numLayers),
      `layerIndex must be an integer from 0, below numLayers, got ${layerIndex} of ${numLayers}`,
    );
    this.require(normEps > 0, `normEps must be positive, got ${normEps}`);
    checkOneOf('MLGRU', 'form', this.options.form, ['auto', 'chunk', 'scan', 'recurrent']);
  }

  override weightSpecs(): Record<string, WeightSpec> {
    const { hiddenSize, layerIndex, numLayers } = this.options;
    const inner = this.#inner;
    return {
      ...(layerIndex > 0 &&
        numLayers > 0 && { lower_bounds: { shape: [numLayers, inner], kind: 'other', init: zeros } as const }),
      ...withNorms(this.options.linear, {
        'i_proj.weight': projection(inner, hiddenSize),
        'f_proj.weight': projection(inner, hiddenSize),
        'g_proj.weight': projection(inner, hiddenSize),
        'o_proj.weight': projection(hiddenSize, inner),
      }),
      'g_norm.weight': normScale(inner),
      ...this.convSpecs(this.#convolved()),
    };
  }

  /** Takes the lower bounds from a table of the model, whose layer `layerIndex` this is; its owner builds and frees it. */
  share(bounds: LowerBounds): this {
    const { layerIndex, numLayers } = this.options;
    this.require(numLayers === 0, 'shares a table, so numLayers must be 0: it has one of its own');
    this.require(
      layerIndex > 0 && layerIndex < bounds.options.numLayers,
      `layerIndex must be from 1 to ${bounds.options.numLayers - 1} to have a lower bound, got ${layerIndex}`,
    );
    this.#shared = bounds;
    return this;
  }

  protected override run(x: tf.Tensor, state: LayerState | undefined, { cuSeqlens }: ForwardOptions): LayerOutput {
    const { useShortConv, shareConvKernel, form, normEps: eps } = this.options;
    const next: LayerState = {};
    const convolved = (name: 'h' | 'i' | 'f', z: tf.Tensor) =>
      useShortConv && shareConvKernel === (name === 'h') ? this.convolve(name, z, state, next, cuSeqlens) : z;
    const projected = this.projectAll(convolved('h', x), ['i_proj', 'f_proj', 'g_proj']);
    const [i, f] = [convolved('i', projected.i_proj), convolved('f', projected.f_proj)];
    const { keep, input } = mlgruGate({ f, i, lowerBound: this.#lowerBound() });
    const scanned = { a: keep, b: input, initialState: state?.recurrent };
    const { o: h, finalState } = linearScan(scanned, { form, cuSeqlens });
    const gated = gatedRmsNorm({ x: projected.g_proj, gate: h, weight: this.need('g_norm.weight') }, { eps });
    return { y: this.project(gated, 'o_proj'), state: { ...next, recurrent: finalState } };
  }

  /** [D * expandRatio]; undefined where it is 0. */
  #lowerBound(): tf.Tensor | undefined {
    const table = this.#shared?.table ?? this.weight('lower_bounds');
    return table && lowerBoundOf(table, this.options.layerIndex);
  }

  protected override stateSpecs(batch: number): Record<string, StateSpec> {
    return { ...this.convStates(batch, this.#convolved()), recurrent: { shape: [batch, this.#inner] } };
  }

  /** Channels of what is convolved. */
  #convolved(): { h: number } | { i: number; f: number } {
    const inner = this.#inner;
    return this.options.shareConvKernel ? { h: this.options.hiddenSize } : { i: inner, f: inner };
  }

  get #inner(): number {
    return this.options.hiddenSize * this.options.expandRatio;
  }
}
tf.serialization.registerClass(MLGRU);

export interface LowerBoundsOptions {
  /** Width of the states. */
  hiddenSize: number;
  numLayers: number;
}

/** The table of lower bounds that the MLGRU layers of a model share, see `MLGRU.share`. It is no layer to call. */
export class LowerBounds extends SeqLayer<LowerBoundsOptions> {
  static readonly className: string = 'LowerBounds';

  constructor(args: LayerArgs<LowerBoundsOptions>) {
    super(args, { numLayers: 1 });
    this.requirePositive('numLayers');
  }

  override weightSpecs(): Record<string, WeightSpec> {
    const { hiddenSize, numLayers } = this.options;
    return { lower_bounds: { shape: [numLayers, hiddenSize], kind: 'other', init: zeros } };
  }

  /** [numLayers, hiddenSize] */
  get table(): tf.Variable {
    return this.need('lower_bounds');
  }

  protected override run(): LayerOutput {
    throw new Error(`${this.label}: holds weights of other layers; call those`);
  }
}
tf.serialization.registerClass(LowerBounds);

/** p_1 + ... + p_layer, p = softmax of the table [layers, D] over the layers. */
export function lowerBoundOf(table: tf.Tensor, layer: number): tf.Tensor {
  const shares = tf.softmax(tf.transpose(table)); // [D, layers]
  const counted = Array.from({ length: table.shape[0] }, (_, l) => Number(l >= 1 && l <= layer));
  return tf.reshape(tf.matMul(shares, tf.tensor2d(counted, [counted.length, 1])), [-1]); // a slice costs more than all else
}
