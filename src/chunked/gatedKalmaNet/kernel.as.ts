/**
 * The ridge regression of Gated KalmaNet, forward and backward, chunk by chunk on the tensors where they lie (README, section 7): from
 * queries to the queries that linear attention then reads with.
 *
 * A chunk is 16 tokens, with decays as wasm/lib/chunk.as.ts makes them. Names: D width of queries and keys, Dp = D padded to a multiple of
 * 8; H the number of heads, "state" the matrix before a chunk. Rows past the end of a sequence are 0 and keep the state.
 * "Rows": a token to a row. "Columns": a token to a column, two panels of 8 tokens. "Turned": in the basis where the state is tridiagonal.
 */
export { gatedKalmaNetBwd, gatedKalmaNetBwdScratch } from './backward.as';
export { gatedKalmaNetFwd, gatedKalmaNetFwdScratch, gatedKalmaNetStarts } from './forward.as';
