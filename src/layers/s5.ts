/**
 * S5, a state space of diagonal modes for all features at once (Smith et al. 2022, https://arxiv.org/abs/2208.04933), with the gate of the
 * published blocks behind it; with `ptd`, S5-PTD (Yu et al. 2023, https://arxiv.org/abs/2310.01698). Norm and residual belong to the block.
 *
 *   x_t = e^{zeta} x_{t-1} + psi B u_t        y_t = 2 Re(C x_t) + D u_t
 */

import * as tf from '@tensorflow/tfjs';
import { checkOneOf } from '../chunked/check.js';
import { discretise, gelu, glu, irregularScan, linear, linearScan } from '../chunked/index.js';
import { pairExp } from '../chunked/pairs.js';
import { channelScale, modeInput, modeOutput } from '../chunked/s5/index.js';
import type { PtdOptions } from '../ssm/index.js';
import { refuseState } from './bidirectional.js';
import { dropout } from './dropout.js';
import { areRates, namedRates, type ParameterGroups, rateOf, type SsmLearningRate } from './s5Groups.js';
import { modesOf, startOf } from './s5Start.js';
import {
  type ForwardOptions,
  type LayerArgs,
  type LayerOutput,
  type LayerState,
  SeqLayer,
  type StateSpec,
  type WeightSpec,
} from './seqLayer.js';

export interface S5Options {
  /** Features H. */
  hiddenSize: number;
  /** States N before conjugates are left out (`ssm_size_base`), an even multiple of `blocks`; default 256. */
  stateSize: number;
  /** HiPPO-LegS matrices on the diagonal of the start; default 8. */
  blocks: number;
  /** Keep one mode of each conjugate pair (`conj_sym`), default true. */
  conjugate: boolean;
  /** Real parts of the modes are at most -1e-4 (`clip_eigs`), default false. */
  clipEigs: boolean;
  /** Default 'zoh'. */
  discretisation: 'zoh' | 'bilinear';
  /** Start of B, default 'lecun'; 'hippo' is that of S5-PTD on images. */
  bInit: 'lecun' | 'hippo';
  /** Start of C, default 'truncated' (`trunc_standard_normal`); 'lecun' (`lecun_normal`), 'complexNormal' (`complex_normal`). */
  cInit: 'truncated' | 'lecun' | 'complexNormal';
  /** Read the sequence from its end too, default false. Such a layer has no state. */
  bidirectional: boolean;
  /** Steps start log-uniform between these; default 1e-3. */
  dtMin: number;
  /** Default 0.1. */
  dtMax: number;
  /**
   * After the state space; g = gelu(y), sigma the sigmoid. `full_glu`: out1(g) * sigma(out2(g)). `half_glu1` (default): g * sigma(out2(g)).
   * `half_glu2`: y * sigma(out2(g)). `gelu`: g. `none`: the state space alone.
   */
  gate: 'full_glu' | 'half_glu1' | 'half_glu2' | 'gelu' | 'none';
  /** Share of the features dropped in training, the same ones at all tokens; default 0. */
  dropout: number;
  /** Perturb then diagonalise for the start; null (default): the normal part of HiPPO-LegS. */
  ptd: PtdOptions | null;
  /**
   * Which weights train at `ssmLearningRate`, and which decay, as in the public scripts. The modes and the steps are in the first group and do
   * not decay. `standard` (default): so is B. `BandCdecay`: B decays, at that rate. `BfastandCdecay`: B decays, at the run's rate.
   * `noBCdecay`: B, C and D are in the first group. All others, biases too, train at the run's rate and decay.
   */
  parameterGroups: ParameterGroups;
  /** The steps train at the run's rate and decay (`dt_global`); default false. */
  dtGlobal: boolean;
  /** Peak learning rate of the first group, or one each for the modes (A), B and the steps; null: the run's. Default 1e-3. */
  ssmLearningRate: SsmLearningRate;
  /** Tokens per chunk of the scan's plain form; null (default): its own choice. */
  chunkSize: number | null;
  /** Form of the scan, default 'auto'. */
  form: 'auto' | 'chunk' | 'scan' | 'recurrent';
  /** Together with the layer's name, the start of the weights where no model gives it; default 0. */
  seed: number;
}

const defaults: Omit<S5Options, 'hiddenSize'> = {
  stateSize: 256,
  blocks: 8,
  conjugate: true,
  clipEigs: false,
  discretisation: 'zoh',
  bInit: 'lecun',
  cInit: 'truncated',
  bidirectional: false,
  dtMin: 1e-3,
  dtMax: 0.1,
  gate: 'half_glu1',
  dropout: 0,
  ptd: null,
  parameterGroups: 'standard',
  dtGlobal: false,
  ssmLearningRate: 1e-3,
  chunkSize: null,
  form: 'auto',
  seed: 0,
};

const CLIPPED = -1e-4;

/** [B, T, H] -> [B, T, H]; state `{ x [B, P, 2] }`, P modes; none when bidirectional. */
export class S5 extends SeqLayer<S5Options> {
  static readonly className: string = 'S5';

  /** @throws RangeError when an option is unknown or does not fit the others */
  constructor(args: LayerArgs<S5Options>) {
    super(asGiven(args), defaults);
    const { stateSize, blocks, dropout, dtMin, dtMax, chunkSize, ...options } = this.options;
    this.requirePositive('stateSize', 'blocks', ...(chunkSize === null ? [] : (['chunkSize'] as const)));
    this.require(
      stateSize % (2 * blocks) === 0,
      `stateSize must be an even multiple of blocks, got ${stateSize} and ${blocks}`,
    );
    this.require(dropout >= 0 && dropout < 1, `dropout must be at least 0 and below 1, got ${dropout}`);
    this.require(dtMin > 0 && dtMax >= dtMin, `needs 0 < dtMin <= dtMax, got ${dtMin} and ${dtMax}`);
    this.require(
      areRates(this.options.ssmLearningRate),
      `ssmLearningRate must be a number >= 0, null, or one each for A, B and dt, got ${JSON.stringify(this.options.ssmLearningRate)}`,
    );
    for (const [name, allowed] of Object.entries(choices))
      checkOneOf(this.getClassName(), name, options[name as keyof typeof choices] as string, allowed);
  }

  /** P, stored modes: half of stateSize where conjugates are left out, more where `ptd` gives real ones. */
  get modes(): number {
    return modesOf(this.options);
  }

  override weightSpecs(): Record<string, WeightSpec> {
    const { hiddenSize: H, bidirectional, cInit, gate } = this.options;
    const P = this.modes;
    const spec = (kind: WeightSpec['kind'], name: string, shape: number[]): Record<string, WeightSpec> => ({
      [name]: {
        shape,
        kind,
        init: (rng, size) => startOf(this.options, name, rng, size),
        ...rateOf(this.options, name),
      },
    });
    const outputs = !bidirectional ? ['C'] : cInit === 'complexNormal' ? ['C'] : ['C1', 'C2'];
    const columns = bidirectional && outputs.length === 1 ? 2 * P : P;
    const dense = (name: string) => ({
      ...spec('matrix', `${name}.kernel`, [H, H]),
      ...spec('bias', `${name}.bias`, [H]),
    });
    return {
      ...spec('other', 'Lambda_re', [P]),
      ...spec('other', 'Lambda_im', [P]),
      ...spec('matrix', 'B', [P, H, 2]),
      ...Object.assign({}, ...outputs.map((name) => spec('matrix', name, [H, columns, 2]))),
      ...spec('other', 'D', [H]),
      ...spec('other', 'log_step', [P, 1]),
      ...(gate === 'full_glu' && dense('out1')),
      ...(gate !== 'gelu' && gate !== 'none' && dense('out2')),
    };
  }

  /** @throws RangeError for a state of a bidirectional layer, or intervals that are not [B, T] */
  override forward(x: tf.Tensor, state?: LayerState, options: ForwardOptions = {}): LayerOutput {
    refuseState(this.label, this.options.bidirectional, state);
    return super.forward(x, state, options);
  }

  protected override run(u: tf.Tensor, state: LayerState | undefined, options: ForwardOptions): LayerOutput {
    const { y, last } = this.#stateSpace(u, state?.x, options);
    return { y: this.#gated(y, options.training), state: last ? { x: last } : {} };
  }

  /** The state space alone: y, and the last state of a layer that reads in one direction. */
  #stateSpace(u: tf.Tensor, initialState: tf.Tensor | undefined, { intervals, cuSeqlens }: ForwardOptions) {
    const { bidirectional, conjugate } = this.options;
    const scan = this.#scan(u, intervals, cuSeqlens);
    const { o, finalState } = scan(false, initialState);
    const rows = (x: tf.Tensor) => tf.reshape(x, [...x.shape.slice(0, 2), -1]);
    const [c, cReverse] = this.#outputs().map((part) => modeOutput({ c: part }, { factor: conjugate ? 2 : 1 }));
    const through = channelScale({ x: u, d: this.need('D') });
    const y = tf.add(linear({ x: rows(o), weight: c }), through);
    if (!bidirectional) return { y, last: finalState };
    return { y: tf.add(y, linear({ x: rows(scan(true).o), weight: cReverse })) };
  }

  /** A scan over the inputs in either direction. */
  #scan(u: tf.Tensor, intervals: tf.Tensor | undefined, cuSeqlens: Int32Array | undefined) {
    const { discretisation: rule, chunkSize, form } = this.options;
    const b = this.need('B');
    const P = b.shape[0] as number;
    const a = this.#modes();
    const dt = tf.exp(tf.reshape(this.need('log_step'), [P]));
    const options = { cuSeqlens, form, ...(chunkSize !== null && { chunkSize }) };
    const added = (psi?: tf.Tensor) =>
      tf.reshape(linear({ x: u, weight: modeInput({ b, psi }) }), [...u.shape.slice(0, 2), P, 2]);
    if (intervals) {
      const inputs = { a, dt, intervals, b: added() };
      return (reverse: boolean, initialState?: tf.Tensor) =>
        irregularScan({ ...inputs, initialState }, { ...options, rule, reverse });
    }
    const { zeta, psi } = discretise({ dt, a }, { rule });
    const inputs = { a: pairExp(zeta), b: added(psi) };
    return (reverse: boolean, initialState?: tf.Tensor) =>
      linearScan({ ...inputs, initialState }, { ...options, reverse });
  }

  /** [P, 2] */
  #modes(): tf.Tensor {
    const re = this.need('Lambda_re');
    return tf.stack([this.options.clipEigs ? tf.minimum(re, CLIPPED) : re, this.need('Lambda_im')], 1);
  }

  /** C, and where there is one, that of the reversed sequence, [H, P, 2]. */
  #outputs(): tf.Tensor[] {
    if (this.weight('C1')) return [this.need('C1'), this.need('C2')];
    return this.options.bidirectional ? tf.split(this.need('C'), 2, 1) : [this.need('C')];
  }

  #gated(y: tf.Tensor, training: ForwardOptions['training']): tf.Tensor {
    const { gate, dropout: rate } = this.options;
    const drop = (x: tf.Tensor, which: string) =>
      rate > 0 && training ? dropout(x, rate, training.split(which), { tied: true }) : x;
    if (gate === 'none') return drop(y, 'out');
    const g = gelu({ x: y }, { approximate: 'tanh' });
    if (gate === 'gelu') return drop(g, 'out');
    const inner = drop(g, 'gelu');
    const value = { full_glu: () => this.#dense('out1', inner), half_glu1: () => inner, half_glu2: () => y }[gate]();
    return drop(glu({ value, gate: this.#dense('out2', inner) }), 'out');
  }

  /** z W + b with W [in, out], as published. */
  #dense(name: string, x: tf.Tensor): tf.Tensor {
    return linear({ x, weight: tf.transpose(this.need(`${name}.kernel`)), bias: this.need(`${name}.bias`) });
  }

  protected override stateSpecs(batch: number): Record<string, StateSpec> {
    return this.options.bidirectional ? {} : { x: { shape: [batch, this.modes, 2] } };
  }
}
tf.serialization.registerClass(S5);

const choices = {
  discretisation: ['zoh', 'bilinear'],
  bInit: ['lecun', 'hippo'],
  cInit: ['truncated', 'lecun', 'complexNormal'],
  gate: ['full_glu', 'half_glu1', 'half_glu2', 'gelu', 'none'],
  parameterGroups: ['standard', 'BandCdecay', 'BfastandCdecay', 'noBCdecay'],
  form: ['auto', 'chunk', 'scan', 'recurrent'],
} as const;

/** Undoes what a saved `tf.model` does to a config: `half_glu1` comes back as `halfGlu1`, `BandCdecay` as `bandCdecay`, `A` as `a`. */
function asGiven(args: LayerArgs<S5Options>): LayerArgs<S5Options> {
  const gate = args.gate?.replace(/Glu/, '_glu') as S5Options['gate'] | undefined;
  const parameterGroups = args.parameterGroups?.replace(/^b/, 'B') as ParameterGroups | undefined;
  return { ...args, gate, parameterGroups, ssmLearningRate: namedRates(args.ssmLearningRate) };
}
