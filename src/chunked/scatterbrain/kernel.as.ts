/**
 * Scatterbrain attention, forward and backward (derivation: README.md): exact weights exp(s q . k) on a support, products of positive random
 * features off it. Nothing is ever T x T.
 *
 * A tile is 64 queries by 64 keys, worked on in strips of 4 queries. Rows are gathered by their numbers, so the same code serves tokens in
 * their order (the window, and features of pairs near the diagonal) and tokens sorted by buckets (the rounds of a hash).
 *
 * Names: E width of q and k, V of v, r rows of the projection, m = 2 r features. Ep, Vp, rp: padded to multiples of 8; mp = 2 rp: features
 * with + and padding, then those with -. "Panel": 8 columns, 32 bytes a row (wasm/lib/product.as.ts); "key panel": the transpose of 8 rows.
 */
export { scatterbrainBwd } from './backward.as';
export { scatterbrainBuckets, scatterbrainBucketsScratch } from './buckets.as';
export { scatterbrainFwd } from './forward.as';
export { scatterbrainScratch } from './plan.as';
