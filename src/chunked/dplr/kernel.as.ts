/**
 * The generalised delta rule, forward and backward, chunk by chunk on the tensors where they lie (derivation: README.md).
 *
 * A chunk is 16 tokens in 4 blocks of 4, with decays as wasm/lib/chunk.as.ts makes them. A token reads twice, with q and with a, and
 * writes twice, v at k and z at b. So everything of a chunk has 32 rows, in pairs of blocks: 4 rows of q (or k, v, dO), then 4 rows of a
 * (or b, z, dz) of the same 4 tokens. Scores of all reads with all writes are one [32, 32] matrix, and what a block sees of the earlier
 * ones is contiguous: one product does for both.
 *
 * Names: Kp, Vp = K, V padded to multiples of 8. Rows past the end of a sequence are 0, their gates too. "Panel": 8 columns, 32
 * bytes a row (wasm/lib/product.as.ts). "Pair": a pair of blocks. z = S^T a, what a reads.
 */
export { dplrBwd, dplrBwdScratch } from './backward.as';
export { dplrFwd, dplrFwdScratch, dplrStarts } from './forward.as';
