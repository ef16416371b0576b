/**
 * Softmax attention with an additive bias of low rank (FlashBias, https://arxiv.org/abs/2505.12044): the T x S bias is the product of
 * two factors, which the tiles of `flashAttention` multiply out as they go. Memory O((T + S) R).
 */
import type * as tf from '@tensorflow/tfjs';
import { checkDtype, checkGiven, checkOneOf, checkShapes } from '../check.js';
import { detached } from '../detached.js';
import { fusedFlashAttention } from '../flashAttention/fused.js';
import type { AttentionMask, FlashAttentionInputs, FlashAttentionOutput } from '../flashAttention/index.js';
import { checkAttention, checkSharing } from '../flashAttention/inputs.js';
import { plainFlashAttention } from '../flashAttention/plain.js';
import type { FactorName } from '../flashAttention/terms.js';
import { isFused, type PlainForm } from '../form.js';

/** All float32; sizes as in `FlashAttentionInputs`, R the rank of the bias. */
export interface FlashBiasInputs extends Omit<FlashAttentionInputs, 'bias'> {
  /** Factors of the queries [B or 1, T, H or 1, R]. Only where there is a band may both factors be absent. */
  phiQ?: tf.Tensor;
  /** Factors of the keys [B or 1, S, H or 1, R]: for heads of q, also where those share heads of k. */
  phiK?: tf.Tensor;
  /**
   * Added to the scores near the diagonal, [B or 1, T or 1, H or 1, 2 w - 1]: entry d of query t is for the key at position S - T + t + d - (w - 1),
   * so the middle one is for its own position. For what a low rank cannot follow there; one row for all queries where the bias depends on j - i alone.
   */
  band?: tf.Tensor;
}

export interface FlashBiasOptions extends AttentionMask {
  /** Factor on q . k alone, not on the bias; default K ** -0.5. */
  scale?: number;
  /**
   * Which of phiQ, phiK and the band have gradients: default true, all; false, none; or a list, as ['phiQ'] for ALiBi, whose learned slopes are
   * in phiQ alone. The others are constants, which saves the time of their gradients.
   */
  factorGradient?: boolean | readonly FactorName[];
  form?: PlainForm;
}

/**
 * o_t = sum_s exp(scale * q_t . k_s + phiQ_t . phiK_s [+ band] - lse_t) v_s over the keys s that query t sees (Eq. 3). Differentiable in all
 * inputs, through both outputs; a factor that is shared by sequences or heads gets the sum. `seqmix/bias` makes the factors of known biases.
 *
 * The product of factors is summed before q . k is added to it, in float32. Where its terms are large and cancel (ALiBi: -m i + m j), what
 * depends on the key must be exact: positions are, up to 2^24, and so are their products with slopes that are powers of two.
 * @throws TypeError when an input is missing or not float32
 * @throws RangeError when a shape or an option is wrong
 */
export function flashBias(inputs: FlashBiasInputs, options: FlashBiasOptions = {}): FlashAttentionOutput {
  checkTerms(inputs, options);
  const { q, k, v, keyMask } = inputs;
  const { causal = true, window, cuSeqlens, form = 'auto' } = options;
  const factorGradient = learnedTerms(options);
  const { scale = (q.shape[3] as number) ** -0.5 } = options;
  const run = isFused('flashBias', form) ? fusedFlashAttention : plainFlashAttention;
  const constants: tf.Tensor[] = [];
  const given = (name: FactorName): tf.Tensor | undefined => {
    const x = inputs[name];
    if (!x || factorGradient.includes(name)) return x;
    const constant = detached(x);
    constants.push(constant);
    return constant;
  };
  const settings = { scale, causal, window, cuSeqlens, biasGradient: false, factorGradient };
  const result = run({ q, k, v, keyMask, phiQ: given('phiQ'), phiK: given('phiK'), band: given('band') }, settings);
  for (const constant of constants) constant.dispose(); // a tape that needs one keeps a copy
  return result;
}

const TERMS: readonly FactorName[] = ['phiQ', 'phiK', 'band'];

function learnedTerms({ factorGradient = true }: FlashBiasOptions): readonly FactorName[] {
  if (typeof factorGradient === 'boolean') return factorGradient ? TERMS : [];
  for (const name of factorGradient) checkOneOf('flashBias', 'factorGradient', name, TERMS);
  return factorGradient;
}

function checkTerms(inputs: FlashBiasInputs, options: FlashBiasOptions): void {
  const { q, k, v, keyMask, phiQ, phiK, band } = inputs;
  checkAttention('flashBias', { q, k, v, keyMask }, options);
  if (phiQ || phiK || !band) checkGiven('flashBias', { phiQ, phiK });
  checkDtype('flashBias', { phiQ, phiK, band });
  const [B, T, H] = q.shape as [number, number, number];
  checkShapes('flashBias', { phiQ: [phiQ, [null, T, null, null]] });
  const R = phiQ?.shape[3] ?? null;
  if (R === 0) throw new RangeError('flashBias: phiQ must have a rank of at least 1, got 0; use flashAttention');
  checkShapes('flashBias', {
    phiK: [phiK, [null, k.shape[1] as number, null, R]],
    band: [band, [null, null, null, null]],
  });
  for (const [name, x] of Object.entries({ phiQ, phiK, band }))
    if (x) checkSharing('flashBias', name, [x.shape[0], x.shape[2] as number], [B, H]);
  if (band) checkBand(band.shape, T);
}

function checkBand([, rows, , width]: number[], T: number): void {
  if (![1, T].includes(rows))
    throw new RangeError(`flashBias: band must have 1 row or one for each of ${T} queries, got ${rows}`);
  if (width % 2 === 0)
    throw new RangeError(`flashBias: band must have an odd number of entries, 2 w - 1, got ${width}`);
}
