/** Kernels that stand in for stock wasm kernels that are missing or wrong; `src/backend/fixes` registers them. */
import { low, pair } from '../wasm/lib/double.as';

/**
 * y[o, i] = factor * sum over r of x[o, r, i], for x [outer, reduce, inner]; sums run in float64 and are rounded once.
 */
export function fixSum(x: usize, y: usize, outer: i32, reduce: i32, inner: i32, factor: f64): void {
  for (let o = 0; o < outer; o++) {
    if (inner == 1) {
      store<f32>(y, <f32>(sumRow(x, reduce) * factor));
    } else {
      sumColumns(x, y, reduce, inner, factor);
    }
    x += <usize>reduce * <usize>inner << 2;
    y += <usize>inner << 2;
  }
}

// @ts-ignore: decorator
@inline
function sumRow(x: usize, n: i32): f64 {
  let a = f64x2.splat(0), b = a, c = a, d = a;
  const end = x + (<usize>n << 2), blocks = x + (<usize>(n & ~7) << 2);
  for (; x < blocks; x += 32) {
    a = f64x2.add(a, low(x, 0));
    b = f64x2.add(b, low(x, 8));
    c = f64x2.add(c, low(x, 16));
    d = f64x2.add(d, low(x, 24));
  }
  const all = f64x2.add(f64x2.add(a, b), f64x2.add(c, d));
  let sum = f64x2.extract_lane(all, 0) + f64x2.extract_lane(all, 1);
  for (; x < end; x += 4) sum += <f64>load<f32>(x);
  return sum;
}

/** Eight columns at a time, all rows of them: a cache line is read once or twice, and the sums stay in registers. */
// @ts-ignore: decorator
@inline
function sumColumns(x: usize, y: usize, rows: i32, columns: i32, factor: f64): void {
  const stride = <usize>columns << 2, scale = f64x2.splat(factor);
  let i = 0;
  for (; i + 8 <= columns; i += 8) {
    let a = f64x2.splat(0), b = a, c = a, d = a;
    let p = x + (<usize>i << 2);
    for (let r = 0; r < rows; r++) {
      a = f64x2.add(a, low(p, 0));
      b = f64x2.add(b, low(p, 8));
      c = f64x2.add(c, low(p, 16));
      d = f64x2.add(d, low(p, 24));
      p += stride;
    }
    const q = y + (<usize>i << 2);
    v128.store(q, pair(f64x2.mul(a, scale), f64x2.mul(b, scale)));
    v128.store(q + 16, pair(f64x2.mul(c, scale), f64x2.mul(d, scale)));
  }
  for (; i < columns; i++) {
    let sum: f64 = 0;
    let p = x + (<usize>i << 2);
    for (let r = 0; r < rows; r++) {
      sum += <f64>load<f32>(p);
      p += stride;
    }
    store<f32>(y + (<usize>i << 2), <f32>(sum * factor));
  }
}

/** y = log(1 + x), right also where 1 + x rounds to 1. */
export function fixLog1p(x: usize, y: usize, n: i32): void {
  for (let i = 0; i < n; i++) {
    const p = <usize>i << 2;
    store<f32>(y + p, Mathf.log1p(load<f32>(x + p)));
  }
}

/** y = min(max(x, low), high); NaN stays NaN. */
export function fixClip(x: usize, y: usize, n: i32, low: f32, high: f32): void {
  const end = n & ~3, lows = f32x4.splat(low), highs = f32x4.splat(high);
  for (let i = 0; i < end; i += 4) {
    const p = <usize>i << 2;
    v128.store(y + p, f32x4.min(f32x4.max(v128.load(x + p), lows), highs));
  }
  for (let i = end; i < n; i++) {
    const p = <usize>i << 2;
    store<f32>(y + p, min<f32>(max<f32>(load<f32>(x + p), low), high));
  }
}

/**
 * y[ids[r]] += x[r] for x [rows, width], y [segments, width]; y is zeroed here. Rows whose id is not in [0, segments) are dropped.
 * `float` is 1 for float32, 0 for int32.
 */
export function fixSegmentSum(x: usize, ids: usize, y: usize, rows: i32, width: i32, segments: i32, float: i32): void {
  memory.fill(y, 0, <usize>segments * <usize>width << 2);
  for (let r = 0; r < rows; r++) {
    const id = load<i32>(ids + (<usize>r << 2));
    if (id < 0 || id >= segments) continue;
    const from = x + (<usize>r * <usize>width << 2), to = y + (<usize>id * <usize>width << 2);
    if (float) addFloats(from, to, width);
    else addInts(from, to, width);
  }
}

// @ts-ignore: decorator
@inline
function addFloats(from: usize, to: usize, n: i32): void {
  const end = n & ~3;
  for (let i = 0; i < end; i += 4) {
    const p = <usize>i << 2;
    v128.store(to + p, f32x4.add(v128.load(to + p), v128.load(from + p)));
  }
  for (let i = end; i < n; i++) {
    const p = <usize>i << 2;
    store<f32>(to + p, load<f32>(to + p) + load<f32>(from + p));
  }
}

// @ts-ignore: decorator
@inline
function addInts(from: usize, to: usize, n: i32): void {
  for (let i = 0; i < n; i++) {
    const p = <usize>i << 2;
    store<i32>(to + p, load<i32>(to + p) + load<i32>(from + p));
  }
}
