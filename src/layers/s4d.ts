/**
 * S4D, a diagonal state space for each channel (Gu et al. 2022, https://arxiv.org/abs/2206.11893), with the activation and the gated projection that
 * mixes the channels behind it; with `ptd`, S4-PTD (Yu et al. 2023, https://arxiv.org/abs/2310.01698). Norm and residual belong to the block.
 *
 *   x_t = e^{zeta} x_{t-1} + psi B u_t        y_t = 2 Re(C x_t) + D u_t        out = glu(W gelu(y) + b)
 */

import * as tf from '@tensorflow/tfjs';
import { checkOneOf } from '../chunked/check.js';
import { type DiagonalSsmForm, diagonalSsm, gelu, glu, linear } from '../chunked/index.js';
import type { PositiveTransform, PtdOptions, S4dInitOptions, S4dSpectrum } from '../ssm/index.js';
import { refuseState } from './bidirectional.js';
import { dropout } from './dropout.js';
import { s4dFixedB, s4dGroup, s4dModes, s4dStart } from './s4dStart.js';
import { areRates, namedRates, type SsmLearningRate } from './s5Groups.js';
import {
  type ForwardOptions,
  type LayerArgs,
  type LayerOutput,
  type LayerState,
  SeqLayer,
  type StateSpec,
  type WeightSpec,
} from './seqLayer.js';
import { bias, matrix } from './weightSpecs.js';

export interface S4DOptions {
  /** Channels H. */
  hiddenSize: number;
  /** States N of each channel, both of a conjugate pair counted (`d_state`); even, default 64. */
  stateSize: number;
  /** Eigenvalues to start from (`init`): default 'legs', the normal part of HiPPO-LegS. */
  spectrum: S4dSpectrum;
  /** Perturb then diagonalise HiPPO-LegS for the start; null (default): `spectrum`. */
  ptd: PtdOptions | null;
  /** Start of B with 'legs': 'half' (default) what the theory needs, 'full' twice that, 'clip2' at most 2 as in the public code. */
  legsB: NonNullable<S4dInitOptions['legsB']>;
  /** Start of B; null (default): that of the spectrum. */
  bInit: NonNullable<S4dInitOptions['bInit']> | null;
  /** Start of C; null (default): complex normal, with `ptd` a real normal C in the basis of the modes. */
  cInit: NonNullable<S4dInitOptions['cInit']> | null;
  /** Copies of A and B that channels share, channel h taking copy h mod copies (`n_ssm`); null (default): each its own. */
  copies: number | null;
  /** Default 'zoh'; 'bilinear'. */
  discretisation: 'zoh' | 'bilinear';
  /** How decays -Re A > 0 are held (`real_transform`), default 'exp'. 'none' lets them become negative: a mode that grows. */
  realTransform: PositiveTransform;
  /** How steps are held (`dt_transform`), default 'exp'. */
  dtTransform: 'exp' | 'softplus';
  /** One step for each channel (default), or for each channel and mode (`dt_tie` false). */
  dtPer: 'channel' | 'mode';
  /** Steps start log-uniform between these; default 1e-3. */
  dtMin: number;
  /** Default 0.1. */
  dtMax: number;
  /** Read the sequence from its end too, with a C of its own; default false. Such a layer has no state. */
  bidirectional: boolean;
  /** B is a weight, default true; else it keeps its start. Only C B matters, so nothing is lost. */
  trainB: boolean;
  /** Modes of at least half as many turns per step count for nothing; null (default): none. */
  bandlimit: number | null;
  /** Factor of all steps, for signals sampled at another rate than in training; default 1. */
  rate: number;
  /** After the state space: 'gelu' (default) or null. */
  activation: 'gelu' | null;
  /** Share of the values dropped after the activation in training; default 0. */
  dropout: number;
  /** Drop the same channels at all tokens, default true. */
  tieDropout: boolean;
  /** 'glu' (default): the projection is to 2 H channels, half of which gate the other half. null: to H channels. */
  gate: 'glu' | null;
  /** Peak learning rate of A, B and the steps, or one each; null: the run's. They do not decay. Default 1e-3. */
  ssmLearningRate: SsmLearningRate;
  /** Tokens per chunk of the op's plain form; null (default): the op's own choice. */
  chunkSize: number | null;
  /** Form of the op, default 'auto'. */
  form: DiagonalSsmForm;
  /** Together with the layer's name, the start of the weights where no model gives it; default 0. */
  seed: number;
}

const defaults: Omit<S4DOptions, 'hiddenSize'> = {
  stateSize: 64,
  spectrum: 'legs',
  ptd: null,
  legsB: 'half',
  bInit: null,
  cInit: null,
  copies: null,
  discretisation: 'zoh',
  realTransform: 'exp',
  dtTransform: 'exp',
  dtPer: 'channel',
  dtMin: 1e-3,
  dtMax: 0.1,
  bidirectional: false,
  trainB: true,
  bandlimit: null,
  rate: 1,
  activation: 'gelu',
  dropout: 0,
  tieDropout: true,
  gate: 'glu',
  ssmLearningRate: 1e-3,
  chunkSize: null,
  form: 'auto',
  seed: 0,
};

const choices = {
  spectrum: ['legs', 'lin', 'inv', 'inv2', 'quad', 'rand', 'real'],
  legsB: ['half', 'full', 'clip2'],
  discretisation: ['zoh', 'bilinear'],
  realTransform: ['exp', 'relu', 'none', 'sigmoid', 'softplus'],
  dtTransform: ['exp', 'softplus'],
  dtPer: ['channel', 'mode'],
  form: ['auto', 'conv', 'chunk', 'recurrent', 'scan'],
} as const;

/**
 * [B, T, H] -> [B, T, H]; state `{ x [B, H, M, 2] }`, M complex modes of each channel. None when bidirectional, and in training none comes out
 * where none went in, since making it costs time and a training step throws it away.
 */
export class S4D extends SeqLayer<S4DOptions> {
  static readonly className: string = 'S4D';

  /** @throws RangeError when an option is unknown or does not fit the others */
  constructor(args: LayerArgs<S4DOptions>) {
    super({ ...args, ssmLearningRate: namedRates(args?.ssmLearningRate) }, defaults);
    const { stateSize, copies, chunkSize, hiddenSize } = this.options;
    this.requirePositive('stateSize');
    for (const [name, value] of Object.entries({ copies, chunkSize }))
      if (value !== null) this.requirePositive(name as 'copies');
    this.require(stateSize % 2 === 0, `stateSize must be even, got ${stateSize}`);
    this.require(
      copies === null || hiddenSize % copies === 0,
      `copies must divide hiddenSize ${hiddenSize}, got ${copies}`,
    );
    for (const [name, allowed] of Object.entries(choices))
      checkOneOf('S4D', name, this.options[name as keyof typeof choices], allowed);
    this.#checkNumbers();
  }

  #checkNumbers(): void {
    const { dtMin, dtMax, dropout: dropped, bandlimit, rate, ssmLearningRate, ptd, spectrum } = this.options;
    const { activation, gate, trainB, bInit } = this.options;
    this.require(dtMin > 0 && dtMax >= dtMin, `needs 0 < dtMin <= dtMax, got ${dtMin} and ${dtMax}`);
    this.require(dropped >= 0 && dropped < 1, `dropout must be at least 0 and below 1, got ${dropped}`);
    this.require(bandlimit === null || bandlimit > 0, `bandlimit must be a number > 0 or null, got ${bandlimit}`);
    this.require(rate > 0 && Number.isFinite(rate), `rate must be a number > 0, got ${rate}`);
    this.require(activation === 'gelu' || activation === null, `activation must be 'gelu' or null, got ${activation}`);
    this.require(gate === 'glu' || gate === null, `gate must be 'glu' or null, got ${gate}`);
    this.require(!ptd || spectrum === 'legs', `ptd starts from spectrum 'legs', got '${spectrum}'`);
    this.require(
      trainB || bInit !== 'random',
      `a B that does not train must not be random; set trainB or another bInit`,
    );
    this.require(
      areRates(ssmLearningRate),
      `ssmLearningRate must be a number >= 0, null, or one each for A, B and dt, got ${JSON.stringify(ssmLearningRate)}`,
    );
  }

  /** M, complex modes of each channel: half of stateSize, more where `ptd` gives real eigenvalues. */
  get modes(): number {
    return s4dModes(this.options);
  }

  override weightSpecs(): Record<string, WeightSpec> {
    const { hiddenSize: H, copies, dtPer, trainB, bidirectional, gate, ssmLearningRate: rates } = this.options;
    const [M, R] = [this.modes, copies ?? H];
    const spec = (name: string, shape: number[], more: Partial<WeightSpec>): Record<string, WeightSpec> => ({
      [name]: { shape, kind: 'other', init: (rng) => s4dStart(this.options, this.#startName(name), rng), ...more },
    });
    const decays = { decays: true };
    return {
      ...spec(this.#stepName, dtPer === 'mode' ? [H, M] : [H], s4dGroup(rates, 'dt')),
      ...spec(this.#decayName, [R, M], s4dGroup(rates, 'A')),
      ...spec('kernel.A_imag', [R, M], s4dGroup(rates, 'A')),
      ...(trainB && spec('kernel.B', [R, M, 2], s4dGroup(rates, 'B'))),
      ...spec('kernel.C', [H, M, 2], decays),
      ...(bidirectional && spec('kernel.C_rev', [H, M, 2], decays)),
      ...spec('D', [H], decays),
      'output_linear.0.weight': matrix(gate ? 2 * H : H, H),
      'output_linear.0.bias': bias(gate ? 2 * H : H, H),
    };
  }

  /** @throws RangeError for a state of a bidirectional layer */
  override forward(x: tf.Tensor, state?: LayerState, options: ForwardOptions = {}): LayerOutput {
    refuseState(this.label, this.options.bidirectional, state);
    return super.forward(x, state, options);
  }

  protected override run(u: tf.Tensor, state: LayerState | undefined, options: ForwardOptions): LayerOutput {
    const { bidirectional, activation, dropout: rate, tieDropout: tied, gate } = this.options;
    const outputFinalState = !bidirectional && !(options.training && !state);
    const { o, finalState } = this.#stateSpace(u, state?.x, outputFinalState, options.cuSeqlens);
    const active = dropout(activation ? gelu({ x: o }) : o, rate, options.training, { tied });
    const mixed = linear({
      x: active,
      weight: this.need('output_linear.0.weight'),
      bias: this.need('output_linear.0.bias'),
    });
    return { y: gate ? glu({ x: mixed }) : mixed, state: finalState ? { x: finalState } : {} };
  }

  #stateSpace(u: tf.Tensor, initialState: tf.Tensor | undefined, outputFinalState: boolean, cuSeqlens?: Int32Array) {
    const { discretisation, chunkSize, form, bandlimit, rate, realTransform, dtTransform } = this.options;
    const decay = positive(realTransform, this.need(this.#decayName));
    const inputs = {
      u,
      dt: positive(dtTransform, this.need(this.#stepName)),
      a: tf.stack([tf.neg(decay), this.need('kernel.A_imag')], 2),
      b: this.weight('kernel.B') ?? this.#fixedB(decay.shape),
      c: this.need('kernel.C'),
      d: this.need('D'),
      cReverse: this.weight('kernel.C_rev'),
      initialState,
    };
    return diagonalSsm(inputs, {
      ...{ discretisation, form, rate, cuSeqlens, outputFinalState },
      chunkSize: chunkSize ?? undefined,
      bandlimit: bandlimit ?? undefined,
    });
  }

  #start: Float32Array | undefined;

  /** B [R, M, 2] where it is no weight. */
  #fixedB(shape: number[]): tf.Tensor {
    this.#start ??= s4dFixedB(this.options);
    return tf.tensor(this.#start, [...shape, 2]);
  }

  /** As in the published checkpoints, whose two layers differ: with 'exp' the stand-alone one, else the full one. */
  get #stepName(): string {
    return this.options.dtTransform === 'exp' ? 'kernel.log_dt' : 'kernel.inv_dt';
  }

  get #decayName(): string {
    return this.options.realTransform === 'exp' ? 'kernel.log_A_real' : 'kernel.A_real';
  }

  /** The name of a weight by what it starts as. */
  #startName(name: string): string {
    if (name === this.#stepName) return 'kernel.log_dt';
    return name === this.#decayName ? 'kernel.log_A_real' : name;
  }

  protected override stateSpecs(batch: number): Record<string, StateSpec> {
    const { hiddenSize, bidirectional } = this.options;
    return bidirectional ? {} : { x: { shape: [batch, hiddenSize, this.modes, 2] } };
  }
}
tf.serialization.registerClass(S4D);

/** The positive number that a weight stands for. */
function positive(transform: PositiveTransform, x: tf.Tensor): tf.Tensor {
  switch (transform) {
    case 'exp':
      return tf.exp(x);
    case 'relu':
      return tf.add(tf.relu(x), 1e-4);
    case 'sigmoid':
      return tf.sigmoid(x);
    case 'softplus':
      return tf.softplus(x);
    default:
      return x;
  }
}
