/** What the oracles of the mixing ops share: which tokens form a sequence. */

/** [first token, number of tokens] of every independent sequence, tokens counted through the batch. */
export function sequencesOf(B: number, T: number, cuSeqlens?: ArrayLike<number>): [start: number, length: number][] {
  if (!cuSeqlens) return Array.from({ length: B }, (_, b) => [b * T, T]);
  if (B !== 1) throw new RangeError(`sequencesOf: cuSeqlens needs B = 1, got ${B}`);
  return Array.from({ length: cuSeqlens.length - 1 }, (_, n) => [cuSeqlens[n], cuSeqlens[n + 1] - cuSeqlens[n]]);
}
