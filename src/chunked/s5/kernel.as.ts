/** Around the scan of S5: its complex weights as real matrices, and the feed-through (README.md of linearScan). */
import { BLOCK_ROWS, flushPart, roundTotal } from '../wasm/lib/blockSum.as';
import { hsum, madd } from '../wasm/lib/math.as';
import { loadN, storeN } from '../wasm/lib/tail.as';

/** w [2P, H] with the rows Re, Im of psi_p b_p from b [P, H, 2] and psi [P, 2]; psi = 0 (no pointer) counts as 1. */
export function modeInputFwd(b: usize, psi: usize, w: usize, P: i32, H: i32): void {
  const row = <usize>H << 2;
  for (let p = 0; p < P; p++, w += 2 * row, b += 2 * row) {
    const re: f32 = psi ? load<f32>(psi + (<usize>p << 3)) : 1, im: f32 = psi ? load<f32>(psi + (<usize>p << 3), 4) : 0;
    let h: usize = 0;
    for (; h + 16 <= row; h += 16) {
      const x = v128.load(b + 2 * h), y = v128.load(b + 2 * h, 16), br = evens(x, y), bi = odds(x, y);
      v128.store(w + h, madd(f32x4.splat(-im), bi, f32x4.mul(f32x4.splat(re), br)));
      v128.store(w + row + h, madd(f32x4.splat(re), bi, f32x4.mul(f32x4.splat(im), br)));
    }
    for (; h < row; h += 4) {
      const br = load<f32>(b + 2 * h), bi = load<f32>(b + 2 * h, 4);
      store<f32>(w + h, re * br - im * bi);
      store<f32>(w + row + h, re * bi + im * br);
    }
  }
}

/** db = conj(psi) dw and, with psi, dPsi = sum over H of conj(b) dw. */
export function modeInputBwd(b: usize, psi: usize, dw: usize, db: usize, dPsi: usize, P: i32, H: i32): void {
  const row = <usize>H << 2;
  for (let p = 0; p < P; p++, dw += 2 * row, b += 2 * row, db += 2 * row) {
    const re: f32 = psi ? load<f32>(psi + (<usize>p << 3)) : 1, im: f32 = psi ? load<f32>(psi + (<usize>p << 3), 4) : 0;
    let sr = f32x4.splat(0), si = sr, h: usize = 0;
    for (; h + 16 <= row; h += 16) {
      const x = v128.load(b + 2 * h), y = v128.load(b + 2 * h, 16), br = evens(x, y), bi = odds(x, y);
      const gr = v128.load(dw + h), gi = v128.load(dw + row + h);
      const r = madd(f32x4.splat(im), gi, f32x4.mul(f32x4.splat(re), gr)), i = madd(f32x4.splat(-im), gr, f32x4.mul(f32x4.splat(re), gi));
      v128.store(db + 2 * h, i32x4.shuffle(r, i, 0, 4, 1, 5));
      v128.store(db + 2 * h, i32x4.shuffle(r, i, 2, 6, 3, 7), 16);
      sr = madd(br, gr, madd(bi, gi, sr));
      si = f32x4.sub(madd(br, gi, si), f32x4.mul(bi, gr));
    }
    let tr = hsum(sr), ti = hsum(si);
    for (; h < row; h += 4) {
      const br = load<f32>(b + 2 * h), bi = load<f32>(b + 2 * h, 4), gr = load<f32>(dw + h), gi = load<f32>(dw + row + h);
      store<f32>(db + 2 * h, re * gr + im * gi);
      store<f32>(db + 2 * h, re * gi - im * gr, 4);
      tr += br * gr + bi * gi;
      ti += br * gi - bi * gr;
    }
    if (!dPsi) continue;
    store<f32>(dPsi + (<usize>p << 3), tr);
    store<f32>(dPsi + (<usize>p << 3), ti, 4);
  }
}

// @ts-ignore: decorator
@inline
function evens(x: v128, y: v128): v128 {
  return i32x4.shuffle(x, y, 0, 2, 4, 6);
}

// @ts-ignore: decorator
@inline
function odds(x: v128, y: v128): v128 {
  return i32x4.shuffle(x, y, 1, 3, 5, 7);
}

/** w = [factor re, -factor im] of n pairs c. It is its own gradient. */
export function modeOutput(c: usize, w: usize, n: i32, factor: f32): void {
  const scale = f32x4(factor, -factor, factor, -factor);
  for (let i = 0; i < 2 * n; i += 4, c += 16, w += 16) storeN(w, f32x4.mul(loadN(c, 2 * n - i), scale), 2 * n - i);
}

/** y = x * d, each of `rows` rows of n. */
export function channelScaleFwd(x: usize, d: usize, y: usize, rows: i32, n: i32): void {
  for (let r = 0; r < rows; r++, x += <usize>n << 2, y += <usize>n << 2) scaleRow(x, d, y, n);
}

function scaleRow(x: usize, d: usize, y: usize, n: i32): void {
  for (let i = 0; i < n; i += 4, x += 16, d += 16, y += 16) storeN(y, f32x4.mul(loadN(x, n - i), loadN(d, n - i)), n - i);
}

/** dd = sum over the rows of x dy. Scratch, zero: `part` of n floats, `total` of n doubles. */
export function channelScaleSum(x: usize, dy: usize, dd: usize, rows: i32, n: i32, part: usize, total: usize): void {
  for (let r = 0; r < rows; r++, x += <usize>n << 2, dy += <usize>n << 2) {
    sumRow(x, dy, part, n);
    if (r % BLOCK_ROWS == BLOCK_ROWS - 1) flushPart(part, total, n);
  }
  flushPart(part, total, n);
  roundTotal(total, dd, n);
}

function sumRow(x: usize, dy: usize, part: usize, n: i32): void {
  for (let i = 0; i < n; i += 4, x += 16, dy += 16, part += 16)
    storeN(part, madd(loadN(x, n - i), loadN(dy, n - i), loadN(part, n - i)), n - i);
}
