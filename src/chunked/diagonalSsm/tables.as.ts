/** What a channel computes with: powers of its transitions, its local kernel, and the matrices between tokens and modes. */
import { cos2, cosPart2, exp2, quarters2, remainder2, sin2, sinPart2 } from '../wasm/lib/exponential.as';
import { hsum, madd } from '../wasm/lib/math.as';
import { bbarAt, cAt, localAt, pad4, powersAt, rowBytes, stepsAt, sumsAt } from './plan.as';

/** n (1 to 4) complex numbers at p: real parts, and imaginary parts `part` bytes on, at `to`; missing ones are 0. */
// @ts-ignore: decorator
@inline
function splitN(p: usize, n: i32, to: usize, part: usize): void {
  const x = n > 1 ? v128.load(p) : v128.load64_zero(p);
  const y = n > 3 ? v128.load(p + 16) : n == 3 ? v128.load64_zero(p + 16) : f32x4.splat(0);
  v128.store(to, v128.shuffle<f32>(x, y, 0, 2, 4, 6));
  v128.store(to + part, v128.shuffle<f32>(x, y, 1, 3, 5, 7));
}

/** M complex numbers, interleaved, as a row of modes; 0: zeros. */
export function loadModes(p: usize, M: i32, row: usize): void {
  const part = rowBytes(M) >> 1;
  if (!p) {
    memory.fill(row, 0, part << 1);
    return;
  }
  for (let m = 0; m < M; m += 4, p += 32, row += 16) splitN(p, min(4, M - m), row, part);
}

/** The inverse of loadModes. */
export function storeModes(row: usize, M: i32, p: usize): void {
  const part = rowBytes(M) >> 1;
  for (let m = 0; m < M; m += 4, p += 32, row += 16) {
    const re = v128.load(row), im = v128.load(row + part), n = M - m;
    const x = v128.shuffle<f32>(re, im, 0, 4, 1, 5), y = v128.shuffle<f32>(re, im, 2, 6, 3, 7);
    if (n > 1) v128.store(p, x);
    else v128.store64_lane(p, x, 0);
    if (n > 3) v128.store(p + 16, y);
    else if (n == 3) v128.store64_lane(p + 16, y, 0);
  }
}

/** to = x y, or conj(x) y, times a number: rows of modes; `to` may be one of them. `add`: added to what is there. */
export function rowProduct(x: usize, y: usize, to: usize, M: i32, conjugate: bool, factor: f32, add: bool): void {
  const part = rowBytes(M) >> 1, f = f32x4.splat(factor);
  for (const end = x + part; x < end; x += 16, y += 16, to += 16) {
    const xr = v128.load(x), yr = v128.load(y), yi = v128.load(y + part);
    let xi = v128.load(x + part);
    if (conjugate) xi = f32x4.neg(xi);
    let re = f32x4.mul(f, f32x4.sub(f32x4.mul(xr, yr), f32x4.mul(xi, yi)));
    let im = f32x4.mul(f, madd(xr, yi, f32x4.mul(xi, yr)));
    if (add) {
      re = f32x4.add(re, v128.load(to));
      im = f32x4.add(im, v128.load(to + part));
    }
    v128.store(to, re);
    v128.store(to + part, im);
  }
}

/** to = factor x, a row of modes. */
export function rowScaled(x: usize, to: usize, M: i32, factor: f32): void {
  const f = f32x4.splat(factor);
  for (const end = x + rowBytes(M); x < end; x += 16, to += 16) v128.store(to, f32x4.mul(f, v128.load(x)));
}

/**
 * exp(l zeta) for l = 0 .. count - 1 as rows of modes, and at `steps` the same less 1: exp(zeta) and its powers in float64, so that the last is
 * as exact as the first however fast the mode turns.
 */
export function powers(zeta: usize, M: i32, count: i32, to: usize, steps: usize): void {
  const row = rowBytes(M), part = row >> 1;
  for (let m = 0; m < pad4(M); m += 4, zeta += 32, to += 16, steps += 16) {
    splitN(zeta, min(4, M - m), to, part);
    const x = v128.load(to), y = v128.load(to + part);
    powersOfTwo(f64x2.promote_low_f32x4(x), f64x2.promote_low_f32x4(y), count, to, steps, row, part);
    const xh = v128.shuffle<f32>(x, x, 2, 3, 2, 3), yh = v128.shuffle<f32>(y, y, 2, 3, 2, 3);
    powersOfTwo(f64x2.promote_low_f32x4(xh), f64x2.promote_low_f32x4(yh), count, to + 8, steps + 8, row, part);
  }
}

/** Two modes of `powers`. */
// @ts-ignore: decorator
@inline
function powersOfTwo(x: v128, y: v128, count: i32, to: usize, steps: usize, row: usize, part: usize): void {
  const size = exp2(x), quarters = quarters2(y), r = remainder2(y, quarters), sin = sinPart2(r), cos = cosPart2(r), one = f64x2.splat(1);
  const er = f64x2.mul(size, cos2(sin, cos, quarters)), ei = f64x2.mul(size, sin2(sin, cos, quarters));
  let re = one, im = f64x2.splat(0);
  for (let l = 0; l < count; l++, to += row, steps += row) {
    const low = f32x4.demote_f64x2_zero(im);
    v128.store64_lane(to, f32x4.demote_f64x2_zero(re), 0);
    v128.store64_lane(to + part, low, 0);
    v128.store64_lane(steps, f32x4.demote_f64x2_zero(f64x2.sub(re, one)), 0);
    v128.store64_lane(steps + part, low, 0);
    const next = f64x2.sub(f64x2.mul(re, er), f64x2.mul(im, ei));
    im = f64x2.add(f64x2.mul(re, ei), f64x2.mul(im, er));
    re = next;
  }
}

/** The constants of a channel from its tensors: bbar = b psi, c times the factor, powers up to Q, the local kernel. Uses the first row of sums. */
export function constants(zeta: usize, psi: usize, b: usize, c: usize, d: f32, factor: f32, M: i32, Q: i32, s: usize): void {
  const bbar = bbarAt(s, M), weights = cAt(s, M), E = powersAt(s, M), row = rowBytes(M), part = row >> 1, product = sumsAt(s, M, 0);
  loadModes(psi, M, product);
  loadModes(b, M, bbar);
  rowProduct(product, bbar, bbar, M, false, 1, false);
  loadModes(c, M, weights);
  rowScaled(weights, weights, M, factor);
  powers(zeta, M, Q + 1, E, stepsAt(s, M, Q));
  rowProduct(weights, bbar, product, M, false, 1, false);
  const local = localAt(s, M, Q);
  for (let l: usize = 0; l < <usize>Q; l++) {
    let sum = f32x4.splat(0);
    const at = E + l * row;
    for (let p: usize = 0; p < part; p += 16) {
      sum = madd(v128.load(product + p), v128.load(at + p), sum);
      sum = f32x4.sub(sum, f32x4.mul(v128.load(product + p + part), v128.load(at + p + part)));
    }
    store<f32>(local + (l << 2), hsum(sum));
  }
  store<f32>(local, load<f32>(local) + d);
}

/** Column `w` of row `s` of a matrix of panels with `rows` rows each. */
// @ts-ignore: decorator
@inline
function panelCell(at: usize, rows: i32, s: i32, w: i32): usize {
  return at + ((<usize>(w >> 3) * <usize>rows + <usize>s) << 5) + (<usize>(w & 7) << 2);
}

/**
 * Panels [Q, W]: row s is `weight` times exp(l zeta), l = Q - 1 - s where `last` (what a token adds to the state after the chunk), else the
 * conjugate at l = s + 1 (what it takes from the state before). `counted`: times l.
 */
export function toModes(s: usize, M: i32, Q: i32, last: bool, counted: bool, to: usize): void {
  const row = rowBytes(M), part = row >> 1, sign = last ? f32x4.splat(1) : f32x4.splat(-1);
  for (let t = 0; t < Q; t++) {
    const l = last ? Q - 1 - t : t + 1, from = powersAt(s, M) + <usize>l * row, f = f32x4.splat(counted ? <f32>l : 1);
    for (let p: usize = 0; p < row; p += 16) {
      const x = f32x4.mul(v128.load(from + p), f);
      v128.store(panelCell(to, Q, t, <i32>(p >> 2)), p < part ? x : f32x4.mul(x, sign));
    }
  }
}

/**
 * Panels [W + Q, Q] to multiply a row of modes and the tokens of its chunk by. Forwards: Re(c exp((t + 1) zeta) x) and the local kernel. Backwards
 * (`adjoint`): Re(conj(bbar exp((Q - 1 - t) zeta)) x) and the local kernel in reverse. Uses the first row of sums.
 */
export function toTokens(s: usize, M: i32, Q: i32, adjoint: bool, to: usize): void {
  const row = rowBytes(M), W = <i32>(row >> 2), rows = W + Q, product = sumsAt(s, M, 0), local = localAt(s, M, Q);
  for (let t = 0; t < Q; t++) {
    const l = adjoint ? Q - 1 - t : t + 1;
    rowProduct(adjoint ? bbarAt(s, M) : cAt(s, M), powersAt(s, M) + <usize>l * row, product, M, false, 1, false);
    let cell = panelCell(to, rows, 0, t);
    for (let w = 0; w < W; w++, cell += 32) {
      const x = load<f32>(product + (<usize>w << 2));
      store<f32>(cell, adjoint || w < W >> 1 ? x : -x);
    }
    for (let r = 0; r < Q; r++, cell += 32) {
      const lag = adjoint ? r - t : t - r;
      store<f32>(cell, lag >= 0 ? load<f32>(local + (<usize>lag << 2)) : 0);
    }
  }
}
