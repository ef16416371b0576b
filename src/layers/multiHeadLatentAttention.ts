/**
 * Multi-head latent attention (DeepSeek-AI 2024, https://arxiv.org/abs/2405.04434, Sec. 2.1): causal softmax attention whose keys and
 * values are all made from one narrow vector per token, the latent, which alone is cached. Without rotary positions it is the full
 * attention of Kimi Linear (https://arxiv.org/abs/2510.26692, Sec. 4).
 *
 *   q = q_proj x, per head [qn | qr];   [c | kr] = kv_a_proj_with_mqa x;   latent = [norm(c) | kr]
 *   kv_b_proj norm(c), per head [kn | v];   score = ([qn | qr] . [kn | kr]) / sqrt(qkNopeHeadDim + qkRopeHeadDim)
 */
import * as tf from '@tensorflow/tfjs';
import { checkOneOf } from '../chunked/check.js';
import { flashAttention, rmsNorm, rotaryEmbedding } from '../chunked/index.js';
import { append } from './cache.js';
import { mergeHeads, repeatHeads, splitHeads } from './heads.js';
import {
  type ForwardOptions,
  type LayerArgs,
  type LayerOutput,
  type LayerState,
  SeqLayer,
  type StateSpec,
  type WeightSpec,
} from './seqLayer.js';
import { type LinearOption, matrix, normScale, withNorms } from './weightSpecs.js';

export interface MultiHeadLatentAttentionOptions extends LinearOption {
  /** Model width D. */
  hiddenSize: number;
  /** Default 4. */
  numHeads: number;
  /** Width of the compressed keys and values, default 512. */
  kvLoraRank: number;
  /** Channels of a head's query and key that are made from the latent, default 128. */
  qkNopeHeadDim: number;
  /** Channels of a query that meet the one key all heads share (rotated where there are positions), default 64. */
  qkRopeHeadDim: number;
  /** Width of a head's value, default 128. */
  vHeadDim: number;
  /** Width the queries are squeezed through, with a norm, as in DeepSeek-V2; null (default): one full projection. */
  qLoraRank: number | null;
  /** Base of the rotary frequencies (DeepSeek-V2: 10000); null (default): no positions, as in Kimi Linear. */
  ropeBase: number | null;
  /** How it is computed, see the class; default 'auto'. */
  form: 'auto' | 'expanded' | 'absorbed';
  /** Together with the layer's name, the start of the weights where no model gives it; default 0. */
  seed: number;
}

/** The published classes build these norms with the default of their norm, whatever the model's `normEps`. */
const LATENT_NORM_EPS = 1e-6;

/**
 * [B, T, D] -> [B, T, D]; state `{ latent [B, S, kvLoraRank + qkRopeHeadDim] }` of the past. Packed documents differ in length, so they
 * give and take no cache: `{}`.
 *
 * Two forms give the same. `expanded` makes every head's keys and values from the latents. `absorbed` leaves them as they are: it takes
 * the queries through the key half of kv_b_proj, attends to the latents with all heads at once, and takes the sums through the value
 * half. `auto` takes the one with fewer products: the first for training and for a prompt, the second for one or a few tokens after a past.
 */
export class MultiHeadLatentAttention extends SeqLayer<MultiHeadLatentAttentionOptions> {
  static readonly className: string = 'MultiHeadLatentAttention';

  /** @throws RangeError when an option is unknown or does not fit the others */
  constructor(args: LayerArgs<MultiHeadLatentAttentionOptions>) {
    super(args, {
      ...{ numHeads: 4, kvLoraRank: 512, qkNopeHeadDim: 128, qkRopeHeadDim: 64, vHeadDim: 128 },
      ...{ qLoraRank: null, ropeBase: null, form: 'auto', linear: 'dense', seed: 0 },
    });
    const { qLoraRank, ropeBase, qkRopeHeadDim, form, linear } = this.options;
    this.requirePositive('numHeads', 'kvLoraRank', 'qkNopeHeadDim', 'qkRopeHeadDim', 'vHeadDim');
    if (qLoraRank !== null) this.requirePositive('qLoraRank');
    this.require(ropeBase === null || ropeBase > 1, `ropeBase must be greater than 1, got ${ropeBase}`);
    this.require(
      ropeBase === null || qkRopeHeadDim % 2 === 0,
      `qkRopeHeadDim must be even for rotary positions, got ${qkRopeHeadDim}; give an even one or ropeBase: null`,
    );
    checkOneOf('MultiHeadLatentAttention', 'form', form, ['auto', 'expanded', 'absorbed']);
    this.require(
      form !== 'absorbed' || linear === 'dense',
      'form absorbed takes kv_b_proj apart, which linear bit does not allow; leave form at auto',
    );
  }

  override forward(x: tf.Tensor, state?: LayerState, options: ForwardOptions = {}): LayerOutput {
    if (options.cuSeqlens && state)
      throw new RangeError(`${this.label}: packed documents take no state, as their caches would differ in length`);
    return super.forward(x, state, options);
  }

  override weightSpecs(): Record<string, WeightSpec> {
    const { hiddenSize, numHeads, kvLoraRank, qkNopeHeadDim, qkRopeHeadDim, vHeadDim, qLoraRank } = this.options;
    const queries = numHeads * (qkNopeHeadDim + qkRopeHeadDim);
    return withNorms(this.options.linear, {
      ...(qLoraRank === null
        ? { 'q_proj.weight': matrix(queries, hiddenSize) }
        : {
            'q_a_proj.weight': matrix(qLoraRank, hiddenSize),
            'q_a_layernorm.weight': normScale(qLoraRank),
            'q_b_proj.weight': matrix(queries, qLoraRank),
          }),
      'kv_a_proj_with_mqa.weight': matrix(kvLoraRank + qkRopeHeadDim, hiddenSize),
      'kv_a_layernorm.weight': normScale(kvLoraRank),
      'kv_b_proj.weight': matrix(numHeads * (qkNopeHeadDim + vHeadDim), kvLoraRank),
      'o_proj.weight': matrix(hiddenSize, numHeads * vHeadDim),
    });
  }

  protected override run(x: tf.Tensor, state: LayerState | undefined, { cuSeqlens }: ForwardOptions): LayerOutput {
    const offset = state ? this.positionOf(state) : 0;
    const q = this.#queries(x, offset, cuSeqlens);
    const latent = append(state?.latent, this.#latents(x, offset, cuSeqlens));
    const attend = this.#isAbsorbed(q.shape[1]!, latent.shape[1]!) ? this.#absorbed : this.#expanded;
    const o = attend.call(this, q, latent, cuSeqlens);
    return { y: this.project(mergeHeads(o), 'o_proj'), state: cuSeqlens ? {} : { latent } };
  }

  /** [B, T, H, dn + dr] */
  #queries(x: tf.Tensor, offset: number, cuSeqlens?: Int32Array): tf.Tensor {
    const { numHeads, qLoraRank, qkNopeHeadDim, ropeBase } = this.options;
    const q = splitHeads(qLoraRank === null ? this.project(x, 'q_proj') : this.#squeezedQueries(x), numHeads);
    if (ropeBase === null) return q;
    const rotated = this.#rotate(channels(q, qkNopeHeadDim), offset, cuSeqlens);
    return tf.concat([channels(q, 0, qkNopeHeadDim), rotated], 3);
  }

  #squeezedQueries(x: tf.Tensor): tf.Tensor {
    const low = this.#norm('q_a_layernorm', this.project(x, 'q_a_proj'));
    return this.project(low, 'q_b_proj');
  }

  /** [norm(c) | kr] of the new tokens, [B, T, r + dr] */
  #latents(x: tf.Tensor, offset: number, cuSeqlens?: Int32Array): tf.Tensor {
    const { kvLoraRank, ropeBase } = this.options;
    const projected = this.project(x, 'kv_a_proj_with_mqa');
    const c = this.#norm('kv_a_layernorm', channels(projected, 0, kvLoraRank));
    const kr = channels(projected, kvLoraRank);
    if (ropeBase === null) return tf.concat([c, kr], 2);
    return tf.concat([c, mergeHeads(this.#rotate(splitHeads(kr, 1), offset, cuSeqlens))], 2);
  }

  /**
   * The published checkpoints pair channels 2i and 2i + 1. Evens before odds makes those the halves that `rotaryEmbedding` pairs; queries
   * and keys stay in that order, which their products do not see.
   */
  #rotate(x: tf.Tensor, offset: number, cuSeqlens?: Int32Array): tf.Tensor {
    const [B, T, H, D] = x.shape as [number, number, number, number];
    const halves = tf.transpose(tf.reshape(x, [B * T * H, D / 2, 2]), [0, 2, 1]);
    const { ropeBase } = this.options as { ropeBase: number };
    return rotaryEmbedding({ x: tf.reshape(halves, x.shape) }, { base: ropeBase, offset, cuSeqlens });
  }

  /** Which of the two forms has fewer products for T tokens at the end of S. */
  #isAbsorbed(T: number, S: number): boolean {
    const { kvLoraRank: r, qkNopeHeadDim: dn, qkRopeHeadDim: dr, vHeadDim: dv, form, linear } = this.options;
    if (linear === 'bit') return false; // the norm of kv_b_proj stands between its halves and the latent
    if (form !== 'auto') return form === 'absorbed';
    const expanded = S * r * (dn + dv) + T * S * (dn + dr + dv);
    const absorbed = T * r * (dn + dv) + T * S * (2 * r + dr);
    return absorbed < expanded;
  }

  /** @returns [B, T, H, dv] */
  #expanded(q: tf.Tensor, latent: tf.Tensor, cuSeqlens?: Int32Array): tf.Tensor {
    const { numHeads, kvLoraRank, qkNopeHeadDim } = this.options;
    const kv = splitHeads(this.project(channels(latent, 0, kvLoraRank), 'kv_b_proj'), numHeads);
    const shared = repeatHeads(channels(latent, kvLoraRank), 1, numHeads);
    const k = tf.concat([channels(kv, 0, qkNopeHeadDim), shared], 3);
    return flashAttention({ q, k, v: channels(kv, qkNopeHeadDim) }, { cuSeqlens }).o;
  }

  /**
   * The latent is key and value in one: what its shared channels add to the sums is dropped, which costs less than a copy without them.
   * So it is with kv_b_proj, [H, dn + dv, r]: zeros and dropped sums keep its halves apart, and no weight is copied.
   * @returns [B, T, H, dv]
   */
  #absorbed(q: tf.Tensor, latent: tf.Tensor, cuSeqlens?: Int32Array): tf.Tensor {
    const { numHeads: H, kvLoraRank, qkNopeHeadDim, qkRopeHeadDim, vHeadDim } = this.options;
    const [B, T] = q.shape as [number, number];
    const kvB = tf.reshape(this.need('kv_b_proj.weight'), [H, qkNopeHeadDim + vHeadDim, kvLoraRank]);
    const padded = tf.pad(byHead(channels(q, 0, qkNopeHeadDim)), [
      [0, 0],
      [0, 0],
      [0, vHeadDim],
    ]);
    const qa = tf.concat([byToken(tf.matMul(padded, kvB), B, T), channels(q, qkNopeHeadDim)], 3);
    const kv = splitHeads(latent, 1);
    const scale = (qkNopeHeadDim + qkRopeHeadDim) ** -0.5;
    const { o } = flashAttention({ q: qa, k: kv, v: kv }, { scale, cuSeqlens });
    const sums = tf.matMul(byHead(channels(o, 0, kvLoraRank)), kvB, false, true);
    return byToken(channels(sums, qkNopeHeadDim), B, T);
  }

  #norm(name: string, x: tf.Tensor): tf.Tensor {
    return rmsNorm({ x, weight: this.need(`${name}.weight`) }, { eps: LATENT_NORM_EPS });
  }

  protected override stateSpecs(batch: number, position: number): Record<string, StateSpec> {
    const { kvLoraRank, qkRopeHeadDim } = this.options;
    return { latent: { shape: [batch, position, kvLoraRank + qkRopeHeadDim] } };
  }

  protected override positionOf({ latent }: LayerState): number {
    return latent.shape[1] ?? 0;
  }
}
tf.serialization.registerClass(MultiHeadLatentAttention);

/** Channels `from` to `end` (default: all that are left) of the last axis. */
function channels(x: tf.Tensor, from: number, end = x.shape.at(-1) as number): tf.Tensor {
  const begin = x.shape.map((_, axis) => (axis === x.rank - 1 ? from : 0));
  return tf.slice(x, begin, [...x.shape.slice(0, -1), end - from]);
}

/** [B, T, H, D] -> [H, B * T, D] */
function byHead(x: tf.Tensor): tf.Tensor {
  const [B, T, H, D] = x.shape as [number, number, number, number];
  return tf.transpose(tf.reshape(x, [B * T, H, D]), [1, 0, 2]);
}

/** [H, B * T, D] -> [B, T, H, D] */
function byToken(x: tf.Tensor, B: number, T: number): tf.Tensor {
  const [H, , D] = x.shape as [number, number, number];
  return tf.reshape(tf.transpose(x, [1, 0, 2]), [B, T, H, D]);
}
