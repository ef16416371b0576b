/**
 * Where things are in scratch. Names: M modes of a channel, Mp = M padded to a multiple of 4, a "row" of modes is Mp real parts and then
 * Mp imaginary parts: W = 2 Mp floats. Q tokens are a chunk, R chunks all sequences together, padded to a multiple of 4.
 * Tokens are packed for 8 channels at once, [8, R, Q]: a cache line of u holds neighbouring channels.
 */

/** Channels whose tokens are packed together. */
// @ts-ignore: decorator
@inline
export const GROUP: i32 = 8;

// @ts-ignore: decorator
@inline
export function pad4(n: i32): i32 { return (n + 3) & ~3; }

/** Bytes of a row of modes. */
// @ts-ignore: decorator
@inline
export function rowBytes(M: i32): usize { return <usize>pad4(M) << 3; }

/** Bytes of the packed tokens of a channel. */
// @ts-ignore: decorator
@inline
export function tokenBytes(R: i32, Q: i32): usize { return <usize>R * <usize>Q << 2; }

// ---- Constants of a channel: rows of modes, then the powers, then the local kernel ----

// @ts-ignore: decorator
@inline
export function bbarAt(s: usize, _M: i32): usize { return s; }
/** The output weights times the factor of conjugate pairs. */
// @ts-ignore: decorator
@inline
export function cAt(s: usize, M: i32): usize { return s + rowBytes(M); }
/** Six rows of sums, of the backward pass alone. */
// @ts-ignore: decorator
@inline
export function sumsAt(s: usize, M: i32, i: i32): usize { return s + <usize>(2 + i) * rowBytes(M); }
/** exp(l zeta), l = 0 .. Q. */
// @ts-ignore: decorator
@inline
export function powersAt(s: usize, M: i32): usize { return s + 8 * rowBytes(M); }
/** exp(l zeta) - 1: states move by this, since rounding exp(l zeta) near 1 would change how fast they decay. */
// @ts-ignore: decorator
@inline
export function stepsAt(s: usize, M: i32, Q: i32): usize { return powersAt(s, M) + <usize>(Q + 1) * rowBytes(M); }
/** K_l, l = 0 .. Q - 1, with d in K_0; then as many floats for the gradient on it, then twice as many for a row of tokens backwards. */
// @ts-ignore: decorator
@inline
export function localAt(s: usize, M: i32, Q: i32): usize { return stepsAt(s, M, Q) + <usize>(Q + 1) * rowBytes(M); }

// @ts-ignore: decorator
@inline
export function constantBytes(M: i32, Q: i32): usize { return <usize>(2 * Q + 10) * rowBytes(M) + (<usize>Q << 4); }

// ---- Right operands of products, as panels of 8 columns (wasm/lib/product.as.ts) ----

/** From tokens to modes, [Q, W]. */
// @ts-ignore: decorator
@inline
export function toModesBytes(M: i32, Q: i32): usize { return <usize>Q * rowBytes(M); }
/** From modes and tokens to tokens, [W + Q, Q]. */
// @ts-ignore: decorator
@inline
export function toTokensBytes(M: i32, Q: i32): usize { return (rowBytes(M) + (<usize>Q << 2)) * <usize>Q; }
