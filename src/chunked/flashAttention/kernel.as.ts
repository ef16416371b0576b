/**
 * Softmax attention, forward and backward, tile by tile: the scores of a tile of queries and keys are made, used and forgotten
 * (derivation: README.md). Memory is linear in the number of tokens.
 *
 * A tile is 64 queries by 64 keys, worked on in strips of 4 queries. A strip computes only the columns that one of its queries sees,
 * rounded to 8; tiles that no query sees are never touched. With native products (blocks.as.ts) 256 queries go together.
 */
export { flashAttentionBwd, flashAttentionBwdScratch } from './backward.as';
export { flashAttentionFwd, flashAttentionFwdScratch } from './forward.as';
