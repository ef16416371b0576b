/**
 * A mixture of gated units as channel mixer, as in Kimi Linear (https://arxiv.org/abs/2510.26692) and DeepSeek-V3
 * (https://arxiv.org/abs/2412.19437, Sec. 2.1.2): every token goes through a few of many experts and through the shared ones.
 */
import * as tf from '@tensorflow/tfjs';
import { linear, mixtureOfExperts } from '../chunked/index.js';
import { routingFault } from '../chunked/moe/routing.js';
import { type LayerArgs, type LayerOutput, SeqLayer, type WeightSpec } from './seqLayer.js';
import { gatedUnit } from './swiGLU.js';
import { matrix, zeros } from './weightSpecs.js';

export interface MixtureOfExpertsOptions {
  /** Model width D. */
  hiddenSize: number;
  /** Experts to choose from, E; default 8. */
  numExperts: number;
  /** Experts of a token, k; default 2. */
  numExpertsPerToken: number;
  /** Experts that every token goes through, as one unit of so many times the width; default 1, may be 0. */
  numSharedExperts: number;
  /** Width inside an expert; null (default): hiddenSize. */
  moeIntermediateSize: number | null;
  /** Divide the weights of a token's experts by their sum, default true. */
  renormalize: boolean;
  /** Factor on those weights, default 1. */
  routedScalingFactor: number;
  /** Experts are chosen out of some groups of neighbours only; divides numExperts, default 1. */
  numExpertGroup: number;
  /** Groups that a token keeps, default 1. */
  topkGroup: number;
  /** How far an expert's bias moves in a training step towards an even load; default 0.001 (DeepSeek-V3), 0: not at all. */
  balanceRate: number;
  /** Together with the layer's name, the start of the weights where no model gives it; default 0. */
  seed: number;
}

/**
 * With s = sigmoid(gate x), `y = sum_e w_e expert_e(x) + shared(x)` over the k experts with the largest s + bias; the weights w come from
 * s alone (see `mixtureOfExperts`). [B, T, D] -> [B, T, D]; stateless. The cost is that of the chosen experts.
 *
 * The bias evens out the load without a loss of its own (Wang et al. 2024, https://arxiv.org/abs/2408.15664): its gradient slot holds the
 * surplus of load, and training moves it against the sign of that by `balanceRate`. An optimizer that knows nothing of it evens out too.
 * The weights of all experts are stacked: `experts.w1` and `experts.w3` (gate, up) [E, I, D], `experts.w2` (down) [E, D, I].
 */
export class MixtureOfExperts extends SeqLayer<MixtureOfExpertsOptions> {
  static readonly className: string = 'MixtureOfExperts';

  /** @throws RangeError when an option is unknown or does not fit the others */
  constructor(args: LayerArgs<MixtureOfExpertsOptions>) {
    super(args, {
      ...{ numExperts: 8, numExpertsPerToken: 2, numSharedExperts: 1, moeIntermediateSize: null },
      ...{ renormalize: true, routedScalingFactor: 1, numExpertGroup: 1, topkGroup: 1, balanceRate: 0.001, seed: 0 },
    });
    const { moeIntermediateSize, numExperts, numSharedExperts, routedScalingFactor, balanceRate } = this.options;
    this.requirePositive('numExperts', 'numExpertsPerToken', 'numExpertGroup', 'topkGroup');
    if (moeIntermediateSize !== null) this.requirePositive('moeIntermediateSize');
    if (numSharedExperts !== 0) this.requirePositive('numSharedExperts');
    this.require(
      Number.isFinite(routedScalingFactor),
      `routedScalingFactor must be a finite number, got ${routedScalingFactor}`,
    );
    this.require(
      balanceRate >= 0 && Number.isFinite(balanceRate),
      `balanceRate must be zero or a positive number, got ${balanceRate}`,
    );
    const fault = routingFault(this.options, numExperts);
    this.require(!fault, `${fault?.[0]} ${fault?.[1]}`);
  }

  override weightSpecs(): Record<string, WeightSpec> {
    const { hiddenSize: D, numExperts: E, numExpertsPerToken, numSharedExperts, balanceRate } = this.options;
    const I = this.options.moeIntermediateSize ?? D;
    const stacked = (out: number, fanIn: number): WeightSpec => ({
      ...{ shape: [E, out, fanIn], kind: 'matrix', fanIn, active: numExpertsPerToken / E },
    });
    const shared = numSharedExperts * I;
    return {
      'gate.weight': matrix(E, D),
      'gate.e_score_correction_bias': { shape: [E], kind: 'other', init: zeros, balanceRate },
      'experts.w1': stacked(I, D),
      'experts.w2': stacked(D, I),
      'experts.w3': stacked(I, D),
      ...(shared && {
        'shared_experts.gate_proj.weight': matrix(shared, D),
        'shared_experts.up_proj.weight': matrix(shared, D),
        'shared_experts.down_proj.weight': matrix(D, shared),
      }),
    };
  }

  protected override run(x: tf.Tensor): LayerOutput {
    const logits = linear({ x, weight: this.need('gate.weight') });
    const bias = this.need('gate.e_score_correction_bias');
    const [w1, w2, w3] = ['w1', 'w2', 'w3'].map((name) => this.need(`experts.${name}`));
    const routed = mixtureOfExperts({ x, logits, bias, w1, w2, w3 }, this.options);
    if (this.options.numSharedExperts === 0) return { y: routed, state: {} };
    const [gate, up, down] = ['gate', 'up', 'down'].map((name) => this.need(`shared_experts.${name}_proj.weight`));
    return { y: tf.add(routed, gatedUnit(x, { gate, up, down })), state: {} };
  }
}
tf.serialization.registerClass(MixtureOfExperts);
