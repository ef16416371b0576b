/**
 * The gated delta rule, forward and backward, chunk by chunk on the tensors where they lie (derivation: README.md). Gates are per
 * channel (KDA), per head (gated delta rule) or absent (delta rule).
 *
 * A chunk is 16 tokens in 4 blocks of 4, with decays as wasm/lib/chunk.as.ts makes them. Names: Kp, Vp = K, V padded to multiples of
 * 8. Rows past the end of a sequence have q = k = v = beta = 0 and g = 0. "Panel": 8 columns, 32 bytes a row
 * (wasm/lib/product.as.ts). A "residual" is what a value head has yet to learn of a value, v - S^T k; beta times it is written.
 */
export { deltaBwd, deltaBwdScratch } from './backward.as';
export { deltaFwd, deltaFwdScratch, deltaStarts } from './forward.as';
