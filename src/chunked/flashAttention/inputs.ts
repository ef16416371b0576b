/** Checks at the door of `flashAttention` and `flashBias`. */
import { checkCuSeqlens, checkDtype, checkGiven, checkPositiveInt, checkShapes } from '../check.js';
import type { AttentionMask, FlashAttentionInputs } from './index.js';

/** Throws an error that names `op` when inputs or options do not fit. */
export function checkAttention(
  op: string,
  { q, k, v, bias, keyMask }: FlashAttentionInputs,
  { causal = true, window, cuSeqlens, scale }: AttentionMask & { scale?: number },
): void {
  checkGiven(op, { q, k, v });
  checkDtype(op, { q, k, v, bias });
  checkDtype(op, { keyMask }, 'bool');
  checkShapes(op, { q: [q, [null, null, null, null]] });
  const [B, T, H, K] = q.shape;
  checkShapes(op, { k: [k, [B, null, null, K]] });
  const [, S, G] = k.shape;
  checkShapes(op, { v: [v, [B, S, G, null]] });
  checkShapes(op, { keyMask: [keyMask, [B, S]], bias: [bias, [null, null, T, S]] });
  if (bias) checkSharing(op, 'bias', [bias.shape[0], bias.shape[1] as number], [B, H as number]);
  if (q.size === 0 || k.size === 0 || v.size === 0)
    throw new RangeError(
      `${op}: q, k and v must not be empty, got [${q.shape.join(',')}], [${k.shape.join(',')}] and [${v.shape.join(',')}]`,
    );
  if (H % G !== 0) throw new RangeError(`${op}: the heads of q must be a multiple of those of k, got ${H} and ${G}`);
  if (causal && S < T)
    throw new RangeError(
      `${op}: causal queries are the last of the keys' positions and need S >= T, got S = ${S} and T = ${T}; give every key, or causal: false`,
    );
  if (cuSeqlens && S !== T)
    throw new RangeError(`${op}: cuSeqlens needs as many keys as queries, got S = ${S} and T = ${T}`);
  checkCuSeqlens(op, cuSeqlens, B, T);
  if (window !== undefined) {
    checkPositiveInt(op, 'window', window);
    if (!causal) throw new RangeError(`${op}: window ${window} needs causal: true, got causal: false`);
  }
  if (scale !== undefined && !Number.isFinite(scale))
    throw new RangeError(`${op}: scale must be a finite number, got ${scale}`);
}

/** `name` must have one sequence or all, and one head or all. */
export function checkSharing(
  op: string,
  name: string,
  [batch, heads]: [batch: number, heads: number],
  [B, H]: [B: number, H: number],
): void {
  if (![1, B].includes(batch))
    throw new RangeError(`${op}: ${name} must be of 1 sequence or of all ${B}, got ${batch}`);
  if (![1, H].includes(heads)) throw new RangeError(`${op}: ${name} must be of 1 head or of all ${H}, got ${heads}`);
}
