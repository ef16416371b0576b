/**
 * Complex FFTs of 4 channels at a time, one in each lane: element t is 32 bytes, four real parts, then four imaginary ones. Decimation in frequency forward, in time
 * backward, so that spectra lie in bit-reversed order and nothing is ever permuted.
 */
import { cos2, cosPart2, quarters2, remainder2, sin2, sinPart2 } from '../wasm/lib/exponential.as';
import { madd } from '../wasm/lib/math.as';
import { loadN, storeN } from '../wasm/lib/tail.as';

/** Transforms up to this size go pass by pass (16 kB, which stays in the first cache), larger ones by their four parts. */
// @ts-ignore: decorator
@inline
const BREADTH: i32 = 512;

/**
 * Twiddles for size N, a power of two: for n = N, N / 4, ... down to 8, the cosines and sines of w^k, w^2k, w^3k, k < n / 4, w = exp(-2 pi i / n). 8 N bytes hold
 * them all.
 */
export function makeTwiddles(table: usize, N: i32): void {
  for (let n = N; n >= 8; n >>= 2) {
    const turn = -6.283185307179586 / <f64>n;
    for (let k = 0; k < n >> 2; k++)
      for (let m = 1; m < 4; m++, table += 8) {
        const x = f64x2.splat(turn * <f64>(m * k)), q = quarters2(x), r = remainder2(x, q), s = sinPart2(r), c = cosPart2(r);
        v128.store64_lane(table, f32x4.demote_f64x2_zero(v128.shuffle<f64>(cos2(s, c, q), sin2(s, c, q), 0, 2)), 0);
      }
  }
}

/** data[p] becomes the spectrum at frequency bitReversed(p). */
export function forwardFft(data: usize, n: i32, table: usize): void {
  if (n > BREADTH) {
    const quarter = <usize>n << 3;
    forwardPass(data, quarter, table);
    table += (<usize>n >> 2) * 24;
    for (let i: usize = 0; i < 4; i++) forwardFft(data + i * quarter, n >> 2, table);
    return;
  }
  const end = data + (<usize>n << 5);
  let m = n;
  for (; m >= 8; m >>= 2) {
    for (let p = data; p < end; p += <usize>m << 5) forwardPass(p, <usize>m << 3, table);
    table += (<usize>m >> 2) * 24;
  }
  if (m == 4) for (let p = data; p < end; p += 128) forwardFour(p);
  else if (m == 2) pairs(data, end);
}

/** The inverse of forwardFft, times n. */
export function backwardFft(data: usize, n: i32, table: usize): void {
  if (n > BREADTH) {
    const quarter = <usize>n << 3, below = table + (<usize>n >> 2) * 24;
    for (let i: usize = 0; i < 4; i++) backwardFft(data + i * quarter, n >> 2, below);
    backwardPass(data, quarter, table);
    return;
  }
  const end = data + (<usize>n << 5);
  let m = n;
  for (; m >= 8; m >>= 2) table += (<usize>m >> 2) * 24;
  if (m == 4) for (let p = data; p < end; p += 128) backwardFour(p);
  else if (m == 2) pairs(data, end);
  for (m = m == 4 ? 16 : 8; m <= n; m <<= 2) {
    table -= (<usize>m >> 2) * 24;
    for (let p = data; p < end; p += <usize>m << 5) backwardPass(p, <usize>m << 3, table);
  }
}

/**
 * The transform of T rows at x, `pitch` bytes apart, of 8 channels (or of the `left` last), and zeros up to n: n / 4 < T <= n / 2, n at least 8. x may be data itself.
 */
export function forwardOfHalf(x: usize, pitch: usize, T: i32, left: i32, data: usize, n: i32, table: usize): void {
  if (left >= 8) firstPass(x, pitch, T, 8, data, n, table);
  else firstPass(x, pitch, T, left, data, n, table);
  const quarter = <usize>n << 3, below = table + (<usize>n >> 2) * 24;
  for (let i: usize = 0; i < 4; i++) forwardFft(data + i * quarter, n >> 2, below);
}

/** forwardPass from elsewhere, where the third and fourth quarters are zeros. */
// @ts-ignore: decorator
@inline
function firstPass(x: usize, pitch: usize, T: i32, left: i32, p: usize, n: i32, w: usize): void {
  const q = n >> 2, ahead = pitch * <usize>q, quarter = <usize>n << 3;
  for (let k = 0; k < q; k++, x += pitch, p += 32, w += 24) {
    const ar = loadRe(x, left), ai = loadIm(x, left), p1 = p + quarter, p2 = p1 + quarter, p3 = p2 + quarter;
    let br = f32x4.splat(0), bi = br;
    if (k + q < T) {
      br = loadRe(x + ahead, left);
      bi = loadIm(x + ahead, left);
    }
    v128.store(p, f32x4.add(ar, br));
    v128.store(p, f32x4.add(ai, bi), 16);
    turned(p1, f32x4.sub(ar, br), f32x4.sub(ai, bi), w + 8);
    turned(p2, f32x4.add(ar, bi), f32x4.sub(ai, br), w);
    turned(p3, f32x4.sub(ar, bi), f32x4.add(ai, br), w + 16);
  }
}

/** backwardFft of which only the first T results are wanted, n / 4 < T <= n / 2: as rows at y, which may be data itself. */
export function backwardToHalf(data: usize, n: i32, table: usize, y: usize, pitch: usize, T: i32, left: i32): void {
  const quarter = <usize>n << 3, below = table + (<usize>n >> 2) * 24;
  for (let i: usize = 0; i < 4; i++) backwardFft(data + i * quarter, n >> 2, below);
  if (left >= 8) lastPass(data, n, table, y, pitch, T, 8);
  else lastPass(data, n, table, y, pitch, T, left);
}

// @ts-ignore: decorator
@inline
function lastPass(p: usize, n: i32, w: usize, y: usize, pitch: usize, T: i32, left: i32): void {
  const q = n >> 2, ahead = pitch * <usize>q, quarter = <usize>n << 3;
  for (let k = 0; k < q; k++, y += pitch, p += 32, w += 24) {
    const p1 = p + quarter, p2 = p1 + quarter, p3 = p2 + quarter;
    const ar = v128.load(p), ai = v128.load(p, 16), cr = unturnedRe(p1, w + 8), ci = unturnedIm(p1, w + 8);
    const br = unturnedRe(p2, w), bi = unturnedIm(p2, w), dr = unturnedRe(p3, w + 16), di = unturnedIm(p3, w + 16);
    storeRow(y, f32x4.add(f32x4.add(ar, cr), f32x4.add(br, dr)), f32x4.add(f32x4.add(ai, ci), f32x4.add(bi, di)), left);
    if (k + q < T) storeRow(y + ahead, f32x4.add(f32x4.sub(ar, cr), f32x4.sub(di, bi)), f32x4.add(f32x4.sub(ai, ci), f32x4.sub(br, dr)), left);
  }
}

// @ts-ignore: decorator
@inline
function loadRe(x: usize, left: i32): v128 { return loadN(x, left); }

// @ts-ignore: decorator
@inline
function loadIm(x: usize, left: i32): v128 { return left > 4 ? loadN(x + 16, left - 4) : f32x4.splat(0); }

// @ts-ignore: decorator
@inline
function storeRow(y: usize, re: v128, im: v128, left: i32): void {
  storeN(y, re, left);
  if (left > 4) storeN(y + 16, im, left - 4);
}

/** One radix-4 pass over 4 quarters of `quarter` bytes. The second and third parts are swapped, which keeps the order that of radix 2. */
function forwardPass(p: usize, quarter: usize, w: usize): void {
  for (const end = p + quarter; p < end; p += 32, w += 24) {
    const p1 = p + quarter, p2 = p1 + quarter, p3 = p2 + quarter;
    const ar = v128.load(p), ai = v128.load(p, 16), cr = v128.load(p2), ci = v128.load(p2, 16);
    const br = v128.load(p1), bi = v128.load(p1, 16), dr = v128.load(p3), di = v128.load(p3, 16);
    const sr = f32x4.add(ar, cr), si = f32x4.add(ai, ci), tr = f32x4.sub(ar, cr), ti = f32x4.sub(ai, ci);
    const ur = f32x4.add(br, dr), ui = f32x4.add(bi, di), vr = f32x4.sub(bi, di), vi = f32x4.sub(dr, br); // v = -i (b - d)
    v128.store(p, f32x4.add(sr, ur));
    v128.store(p, f32x4.add(si, ui), 16);
    turned(p1, f32x4.sub(sr, ur), f32x4.sub(si, ui), w + 8);
    turned(p2, f32x4.add(tr, vr), f32x4.add(ti, vi), w);
    turned(p3, f32x4.sub(tr, vr), f32x4.sub(ti, vi), w + 16);
  }
}

/** Stores x times the twiddle at w. */
// @ts-ignore: decorator
@inline
function turned(p: usize, xr: v128, xi: v128, w: usize): void {
  const c = v128.load32_splat(w), s = v128.load32_splat(w, 4);
  v128.store(p, f32x4.sub(f32x4.mul(xr, c), f32x4.mul(xi, s)));
  v128.store(p, madd(xr, s, f32x4.mul(xi, c)), 16);
}

/** Re and Im of the number at p times the conjugate of the twiddle at w. */
// @ts-ignore: decorator
@inline
function unturnedRe(p: usize, w: usize): v128 {
  return madd(v128.load(p), v128.load32_splat(w), f32x4.mul(v128.load(p, 16), v128.load32_splat(w, 4)));
}

// @ts-ignore: decorator
@inline
function unturnedIm(p: usize, w: usize): v128 {
  return f32x4.sub(f32x4.mul(v128.load(p, 16), v128.load32_splat(w)), f32x4.mul(v128.load(p), v128.load32_splat(w, 4)));
}

function backwardPass(p: usize, quarter: usize, w: usize): void {
  for (const end = p + quarter; p < end; p += 32, w += 24) {
    const p1 = p + quarter, p2 = p1 + quarter, p3 = p2 + quarter;
    const ar = v128.load(p), ai = v128.load(p, 16), cr = unturnedRe(p1, w + 8), ci = unturnedIm(p1, w + 8);
    const br = unturnedRe(p2, w), bi = unturnedIm(p2, w), dr = unturnedRe(p3, w + 16), di = unturnedIm(p3, w + 16);
    joined(p, quarter, ar, ai, br, bi, cr, ci, dr, di);
  }
}

/** The inverse butterfly of a, b, c, d, stored at the four quarters. */
// @ts-ignore: decorator
@inline
function joined(p: usize, quarter: usize, ar: v128, ai: v128, br: v128, bi: v128, cr: v128, ci: v128, dr: v128, di: v128): void {
  const p1 = p + quarter, p2 = p1 + quarter, p3 = p2 + quarter;
  const sr = f32x4.add(ar, cr), si = f32x4.add(ai, ci), tr = f32x4.sub(ar, cr), ti = f32x4.sub(ai, ci);
  const ur = f32x4.add(br, dr), ui = f32x4.add(bi, di), vr = f32x4.sub(di, bi), vi = f32x4.sub(br, dr); // v = i (b - d)
  v128.store(p, f32x4.add(sr, ur));
  v128.store(p, f32x4.add(si, ui), 16);
  v128.store(p1, f32x4.add(tr, vr));
  v128.store(p1, f32x4.add(ti, vi), 16);
  v128.store(p2, f32x4.sub(sr, ur));
  v128.store(p2, f32x4.sub(si, ui), 16);
  v128.store(p3, f32x4.sub(tr, vr));
  v128.store(p3, f32x4.sub(ti, vi), 16);
}

/** The last pass of a power of four: no twiddles. */
// @ts-ignore: decorator
@inline
function forwardFour(p: usize): void {
  const ar = v128.load(p), ai = v128.load(p, 16), br = v128.load(p, 32), bi = v128.load(p, 48);
  const cr = v128.load(p, 64), ci = v128.load(p, 80), dr = v128.load(p, 96), di = v128.load(p, 112);
  const sr = f32x4.add(ar, cr), si = f32x4.add(ai, ci), tr = f32x4.sub(ar, cr), ti = f32x4.sub(ai, ci);
  const ur = f32x4.add(br, dr), ui = f32x4.add(bi, di), vr = f32x4.sub(bi, di), vi = f32x4.sub(dr, br);
  v128.store(p, f32x4.add(sr, ur));
  v128.store(p, f32x4.add(si, ui), 16);
  v128.store(p, f32x4.sub(sr, ur), 32);
  v128.store(p, f32x4.sub(si, ui), 48);
  v128.store(p, f32x4.add(tr, vr), 64);
  v128.store(p, f32x4.add(ti, vi), 80);
  v128.store(p, f32x4.sub(tr, vr), 96);
  v128.store(p, f32x4.sub(ti, vi), 112);
}

// @ts-ignore: decorator
@inline
function backwardFour(p: usize): void {
  const ar = v128.load(p), ai = v128.load(p, 16), cr = v128.load(p, 32), ci = v128.load(p, 48);
  const br = v128.load(p, 64), bi = v128.load(p, 80), dr = v128.load(p, 96), di = v128.load(p, 112);
  joined(p, 32, ar, ai, br, bi, cr, ci, dr, di);
}

/** The last pass of twice a power of four, its own inverse but for a factor of 2. */
// @ts-ignore: decorator
@inline
function pairs(p: usize, end: usize): void {
  for (; p < end; p += 64) {
    const ar = v128.load(p), ai = v128.load(p, 16), br = v128.load(p, 32), bi = v128.load(p, 48);
    v128.store(p, f32x4.add(ar, br));
    v128.store(p, f32x4.add(ai, bi), 16);
    v128.store(p, f32x4.sub(ar, br), 32);
    v128.store(p, f32x4.sub(ai, bi), 48);
  }
}
