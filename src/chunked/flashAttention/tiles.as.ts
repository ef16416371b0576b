/**
 * What forward and backward share: tiles, what a query sees, packing, products of a strip of 4 queries.
 *
 * Names: Kp, Vp, Rp = K, V, rank padded to multiples of 8. "Panel": 8 columns, 32 bytes a row (wasm/lib/product.as.ts); "key panel": the
 * transpose of 8 keys, [Kp, 8]. Missing rows and columns are 0.
 */
import { madd } from '../wasm/lib/math.as';
import { storeTransposed, sums4 } from '../wasm/lib/product.as';
import { packPanel, packTransposed, pad8 } from '../wasm/lib/rows.as';
import { loadN, storeN } from '../wasm/lib/tail.as';
import { SCORES_ROW, Terms } from './terms.as';

/** Keys in a tile. */
// @ts-ignore: decorator
@inline
export const KEYS: i32 = 64;
/** Queries in a tile. */
// @ts-ignore: decorator
@inline
export const QUERIES: i32 = 64;
/** Bytes of a panel of a tile's rows (queries or keys). */
// @ts-ignore: decorator
@inline
export const TILE_PANEL: usize = 2048;

// ---- What a query sees --------------------------------------------------------------------------------------------------------
// Positions count from the first key of a sequence. `shift` = S - T, the position of its first query; `window` = 0: no window.

/** The first key that query t sees. */
// @ts-ignore: decorator
@inline
export function firstKey(t: i32, shift: i32, window: i32): i32 {
  return window ? max(0, t + shift - window + 1) : 0;
}

/** The end of the keys that query t sees. */
// @ts-ignore: decorator
@inline
export function endKey(t: i32, S: i32, shift: i32, causal: bool): i32 {
  return causal ? min(S, t + shift + 1) : S;
}

/** The first column of a tile from key j that the strip from query t sees, rounded down to 8; KEYS or more where it sees none. */
// @ts-ignore: decorator
@inline
export function firstColumn(t: i32, j: i32, shift: i32, window: i32): i32 {
  return max(0, firstKey(t, shift, window) - j) & ~7;
}

/** The end of those columns, rounded up to 8; 0 or less where it sees none. */
// @ts-ignore: decorator
@inline
export function endColumn(t: i32, j: i32, S: i32, shift: i32, causal: bool): i32 {
  return min(KEYS, pad8(endKey(t + 3, S, shift, causal) - j));
}

/** Scores that a query of the strip does not see become -Infinity; returns at once where all see all columns from `col` to `end`. */
export function hide(scores: usize, t: i32, j: i32, col: i32, end: i32, S: i32, shift: i32, causal: bool, window: i32): void {
  if (endKey(t, S, shift, causal) >= j + end && firstKey(t + 3, shift, window) <= j + col) return;
  const lowest = f32x4.splat(-Infinity);
  for (let r = 0; r < 4; r++, t++, scores += SCORES_ROW) {
    const first = i32x4.splat(firstKey(t, shift, window) - j), last = i32x4.splat(endKey(t, S, shift, causal) - j - 1);
    let at = i32x4.add(i32x4.splat(col), i32x4(0, 1, 2, 3));
    for (let p = scores + (<usize>col << 2), stop = scores + (<usize>end << 2); p < stop; p += 16) {
      const hidden = v128.or(i32x4.lt_s(at, first), i32x4.gt_s(at, last));
      v128.store(p, v128.bitselect(lowest, v128.load(p), hidden));
      at = i32x4.add(at, i32x4.splat(4));
    }
  }
}

// ---- Packing ------------------------------------------------------------------------------------------------------------------

// Where there are factors, they come before q and k: a strip of queries has the factors of its four queries, then q; a key panel the rows of the
// keys' factors, then those of k. One product gives the scores with their bias. The factors are first in its sum: where their terms are large and cancel,
// as those of ALiBi, they do so before q . k is added. Wp = Rp + Kp is the room of a row.

/** A tile of keys (or values) as key panels that are `panel` bytes apart. */
export function packKeyPanels(src: usize, stride: usize, n: i32, width: i32, dst: usize, panel: usize): void {
  for (let r = 0; r < n; r += 8, src += stride << 3, dst += panel) packTransposed(src, stride, min(8, n - r), width, dst);
}

/** The rows of factors of a tile's key panels. */
export function packKeyFactors(phi: usize, stride: usize, n: i32, rank: i32, dst: usize, panel: usize): void {
  for (let r = 0; r < pad8(n); r++, phi += stride) {
    const to = dst + <usize>(r >> 3) * panel + (<usize>(r & 7) << 2);
    for (let i: usize = 0; i < <usize>rank; i++) store<f32>(to + (i << 5), r < n ? load<f32>(phi + (i << 2)) : 0);
  }
}

/** [factors, scale * q] of n queries from query t as strips of 4 queries: [Wp, 4] each, so that one pointer serves the four. */
export function packQueries(x: Terms, t: i32, q: usize, stride: usize, n: i32, K: i32, scale: f32, dst: usize, Wp: i32): void {
  if (x.rank) packStrips(x.phiQAt + <usize>t * x.phiQRow, x.phiQRow, n, x.rank, 1, dst, Wp);
  packStrips(q, stride, n, K, scale, dst + (<usize>x.rank << 4), Wp);
}

/** n rows, times a factor, as strips of 4 rows: [room, 4] each, 0 for rows there are not. What `room` has after the width (rounded up to 4) stays. */
export function packStrips(src: usize, stride: usize, n: i32, width: i32, factor: f32, dst: usize, room: i32): void {
  const f = f32x4.splat(factor), none = f32x4.splat(0);
  for (; n > 0; n -= 4, src += stride << 2, dst += <usize>room << 4)
    for (let c = 0; c < width; c += 4) {
      const p = src + (<usize>c << 2), left = width - c;
      const r0 = f32x4.mul(f, loadN(p, left)), r1 = n > 1 ? f32x4.mul(f, loadN(p + stride, left)) : none;
      const r2 = n > 2 ? f32x4.mul(f, loadN(p + 2 * stride, left)) : none, r3 = n > 3 ? f32x4.mul(f, loadN(p + 3 * stride, left)) : none;
      storeTransposed(dst + (<usize>c << 4), 16, r0, r1, r2, r3);
    }
}

/** A tile of `n` rows as panels of 64 rows. */
export function packTile(src: usize, stride: usize, n: i32, width: i32, dst: usize): void {
  for (let col = 0; col < width; col += 8, dst += TILE_PANEL) packPanel(src, stride, n, width, col, dst, KEYS);
}

/** dst[r] = factor[r] * src[r] for n rows of `width` floats; rows are `row` and `stride` bytes apart. */
export function writeRows(
  src: usize, row: usize, n: i32, width: i32, dst: usize, stride: usize, factors: usize, factorStride: usize,
): void {
  for (let r = 0; r < n; r++, src += row, dst += stride, factors += factorStride) scaleTo(src, width, v128.load_splat<f32>(factors), dst);
}

/** The same with one factor for all. */
export function copyRows(src: usize, row: usize, n: i32, width: i32, factor: f32, dst: usize, stride: usize): void {
  const f = f32x4.splat(factor);
  for (let r = 0; r < n; r++, src += row, dst += stride) scaleTo(src, width, f, dst);
}

// @ts-ignore: decorator
@inline
function scaleTo(src: usize, width: i32, f: v128, dst: usize): void {
  const full = <usize>(width & ~3) << 2, tail = width & 3;
  let p: usize = 0;
  for (; p < full; p += 16) v128.store(dst + p, f32x4.mul(f, v128.load(src + p)));
  if (tail) storeN(dst + p, f32x4.mul(f, loadN(src + p, tail)), tail);
}

// ---- Products of a strip of 4 queries -----------------------------------------------------------------------------------------

/** scores[4, col..end] = the first `width` columns of a strip times the key panels of a tile, which have `room` rows. */
export function stripScores(strip: usize, width: i32, room: i32, keys: usize, col: i32, end: i32, scores: usize): void {
  const stop = strip + (<usize>width << 4), panel = <usize>room << 5, last = scores + (<usize>end << 2);
  keys += <usize>(col >> 3) * panel;
  for (let to = scores + (<usize>col << 2); to < last; to += 32, keys += panel) {
    let c00 = f32x4.splat(0), c01 = c00, c10 = c00, c11 = c00, c20 = c00, c21 = c00, c30 = c00, c31 = c00;
    for (let p = strip, q = keys; p < stop; p += 16, q += 32) {
      const x = v128.load(q), y = v128.load(q, 16);
      let s = v128.load_splat<f32>(p);
      c00 = madd(s, x, c00);
      c01 = madd(s, y, c01);
      s = v128.load_splat<f32>(p, 4);
      c10 = madd(s, x, c10);
      c11 = madd(s, y, c11);
      s = v128.load_splat<f32>(p, 8);
      c20 = madd(s, x, c20);
      c21 = madd(s, y, c21);
      s = v128.load_splat<f32>(p, 12);
      c30 = madd(s, x, c30);
      c31 = madd(s, y, c31);
    }
    v128.store(to, c00);
    v128.store(to, c01, 16);
    v128.store(to, c10, SCORES_ROW);
    v128.store(to, c11, SCORES_ROW + 16);
    v128.store(to, c20, 2 * SCORES_ROW);
    v128.store(to, c21, 2 * SCORES_ROW + 16);
    v128.store(to, c30, 3 * SCORES_ROW);
    v128.store(to, c31, 3 * SCORES_ROW + 16);
  }
}

/**
 * out[4, padded] += weights[4, col..end] times the rows of a tile in panels. The stride of the weights is known, so that one pointer serves
 * their four rows. (Offsets of loads must be written out: AssemblyScript takes no parameter there, so other strides have a function of their own.)
 */
export function stripOutputs(weights: usize, panels: usize, col: i32, end: i32, out: usize, padded: i32): void {
  const first = weights + (<usize>col << 2), stop = weights + (<usize>end << 2), row = <usize>padded << 2;
  panels += <usize>col << 5;
  for (const last = out + row; out < last; out += 32, panels += TILE_PANEL) {
    const r1 = out + row, r2 = r1 + row, r3 = r2 + row;
    let c00 = v128.load(out), c01 = v128.load(out, 16), c10 = v128.load(r1), c11 = v128.load(r1, 16);
    let c20 = v128.load(r2), c21 = v128.load(r2, 16), c30 = v128.load(r3), c31 = v128.load(r3, 16);
    for (let p = first, q = panels; p < stop; p += 4, q += 32) {
      const x = v128.load(q), y = v128.load(q, 16);
      let s = v128.load_splat<f32>(p);
      c00 = madd(s, x, c00);
      c01 = madd(s, y, c01);
      s = v128.load_splat<f32>(p, SCORES_ROW);
      c10 = madd(s, x, c10);
      c11 = madd(s, y, c11);
      s = v128.load_splat<f32>(p, 2 * SCORES_ROW);
      c20 = madd(s, x, c20);
      c21 = madd(s, y, c21);
      s = v128.load_splat<f32>(p, 3 * SCORES_ROW);
      c30 = madd(s, x, c30);
      c31 = madd(s, y, c31);
    }
    v128.store(out, c00);
    v128.store(out, c01, 16);
    v128.store(r1, c10);
    v128.store(r1, c11, 16);
    v128.store(r2, c20);
    v128.store(r2, c21, 16);
    v128.store(r3, c30);
    v128.store(r3, c31, 16);
  }
}

/** Up to this many columns `narrowOutputs` does less work than a panel of 8. */
// @ts-ignore: decorator
@inline
export const NARROW: i32 = 4;

/**
 * out[4, width] += weights[4, col..end] times the first `width` rows of the key panels, transposed: dot products along the keys. Where the
 * width is odd, the next column of `out` gets the row after them.
 */
export function narrowOutputs(
  weights: usize, keys: usize, panel: usize, col: i32, end: i32, width: i32, out: usize, outRow: usize,
): void {
  const first = weights + (<usize>col << 2), stop = weights + (<usize>end << 2), second = out + 2 * outRow;
  keys += <usize>(col >> 3) * panel;
  for (let at: usize = 0; at < <usize>width << 2; at += 8, keys += 64) {
    let c00 = f32x4.splat(0), c01 = c00, c10 = c00, c11 = c00, c20 = c00, c21 = c00, c30 = c00, c31 = c00;
    for (let p = first, q = keys; p < stop; p += 32, q += panel) {
      for (let half: usize = 0; half < 32; half += 16) {
        const x = v128.load(q + half), y = v128.load(q + half, 32);
        let s = v128.load(p + half);
        c00 = madd(s, x, c00);
        c01 = madd(s, y, c01);
        s = v128.load(p + half, SCORES_ROW);
        c10 = madd(s, x, c10);
        c11 = madd(s, y, c11);
        s = v128.load(p + half, 2 * SCORES_ROW);
        c20 = madd(s, x, c20);
        c21 = madd(s, y, c21);
        s = v128.load(p + half, 3 * SCORES_ROW);
        c30 = madd(s, x, c30);
        c31 = madd(s, y, c31);
      }
    }
    addPairs(out + at, outRow, sums4(c00, c01, c10, c11));
    addPairs(second + at, outRow, sums4(c20, c21, c30, c31));
  }
}

/** The halves of a vector, added to two floats of a row and of the next. */
// @ts-ignore: decorator
@inline
function addPairs(p: usize, row: usize, x: v128): void {
  const sum = f32x4.add(x, v128.load_lane<f64>(p + row, v128.load64_zero(p), 1));
  v128.store_lane<f64>(p, sum, 0);
  v128.store_lane<f64>(p + row, sum, 1);
}
