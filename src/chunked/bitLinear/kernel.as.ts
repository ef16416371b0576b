/** The rounding of BitLinear: int8 activations per row, ternary weights per matrix. `f32x4.nearest` rounds ties to even. */
import { sumSquares } from '../wasm/lib/blockSum.as';
import { low } from '../wasm/lib/double.as';
import { loadN, storeN } from '../wasm/lib/tail.as';

/**
 * values = round(y * scale), or y itself where not `rounds`, with y = x * r * norm, r = (mean x^2 + eps)^-1/2 and scale = 127 / max|y|
 * per row (1 where not `rounds`). `divides`: values / scale instead. `norm` = 0: ones.
 */
export function bitQuantiseRows(
  x: usize, norm: usize, values: usize, scales: usize, rows: i32, D: i32, eps: f64, rounds: i32, divides: i32,
): void {
  const stride = <usize>D << 2, full = stride & ~15;
  for (let row = 0; row < rows; row++, x += stride, values += stride, scales += 4) {
    const r = f32x4.splat(<f32>(1 / sqrt<f64>(sumSquares(x, D) / <f64>D + eps)));
    let largest = f32x4.splat(0);
    for (let p: usize = 0; p < full; p += 16) largest = normCell(x + p, norm, p, values + p, r, largest, 4);
    if (D & 3) largest = normCell(x + full, norm, full, values + full, r, largest, D & 3);
    const scale = rounds ? <f32>127 / max<f32>(maxOf(largest), 1e-5) : <f32>1;
    store<f32>(scales, scale);
    if (!rounds) continue;
    for (let p: usize = 0; p < full; p += 16) roundCell(values + p, scale, divides, 4);
    if (D & 3) roundCell(values + full, scale, divides, D & 3);
  }
}

/** Leaves y in `values`; the largest |y| per lane, NaN if one is. */
// @ts-ignore: decorator
@inline
function normCell(x: usize, norm: usize, p: usize, values: usize, r: v128, largest: v128, lanes: i32): v128 {
  let y = f32x4.mul(loadN(x, lanes), r);
  if (norm) y = f32x4.mul(y, loadN(norm + p, lanes));
  storeN(values, y, lanes);
  return f32x4.max(largest, f32x4.abs(y));
}

// @ts-ignore: decorator
@inline
function maxOf(v: v128): f32 {
  const a = max<f32>(f32x4.extract_lane(v, 0), f32x4.extract_lane(v, 1));
  return max<f32>(a, max<f32>(f32x4.extract_lane(v, 2), f32x4.extract_lane(v, 3)));
}

// @ts-ignore: decorator
@inline
function roundCell(values: usize, scale: f32, divides: i32, lanes: i32): void {
  const s = f32x4.splat(scale);
  const v = clip(f32x4.nearest(f32x4.mul(loadN(values, lanes), s)), -128, 127);
  storeN(values, divides ? f32x4.div(v, s) : v, lanes);
}

// @ts-ignore: decorator
@inline
function clip(v: v128, lowest: f32, highest: f32): v128 {
  return f32x4.max(f32x4.min(v, f32x4.splat(highest)), f32x4.splat(lowest));
}

/** ternary = clip(round(W * scale), -1, 1) over n floats; returns scale = 1 / mean|W|, the mean in float64. */
export function bitQuantiseWeight(weight: usize, ternary: usize, n: i32): f32 {
  const full = <usize>(n & ~3) << 2, scale = <f32>1 / max<f32>(<f32>(sumAbs(weight, n) / <f64>n), 1e-5);
  for (let p: usize = 0; p < full; p += 16) ternaryCell(weight + p, ternary + p, scale, 4);
  if (n & 3) ternaryCell(weight + full, ternary + full, scale, n & 3);
  return scale;
}

function sumAbs(x: usize, n: i32): f64 {
  let a = f64x2.splat(0), b = a, i = 0;
  for (; i + 4 <= n; i += 4, x += 16) {
    a = f64x2.add(a, f64x2.abs(low(x, 0)));
    b = f64x2.add(b, f64x2.abs(low(x, 8)));
  }
  a = f64x2.add(a, b);
  let sum = f64x2.extract_lane(a, 0) + f64x2.extract_lane(a, 1);
  for (; i < n; i++, x += 4) sum += abs<f64>(<f64>load<f32>(x));
  return sum;
}

// @ts-ignore: decorator
@inline
function ternaryCell(weight: usize, ternary: usize, scale: f32, lanes: i32): void {
  storeN(ternary, clip(f32x4.nearest(f32x4.mul(loadN(weight, lanes), f32x4.splat(scale))), -1, 1), lanes);
}

/** Row i of out [rows, D] divided by scales_i * scale. */
export function bitScaleRows(out: usize, scales: usize, rows: i32, D: i32, scale: f32): void {
  for (let row = 0; row < rows; row++, scales += 4, out += <usize>D << 2) bitDivide(out, D, load<f32>(scales) * scale);
}

/** n floats divided by `divisor`, in place. */
export function bitDivide(x: usize, n: i32, divisor: f32): void {
  const full = <usize>(n & ~3) << 2, d = f32x4.splat(divisor);
  for (let p: usize = 0; p < full; p += 16) v128.store(x + p, f32x4.div(v128.load(x + p), d));
  if (n & 3) storeN(x + full, f32x4.div(loadN(x + full, n & 3), d), n & 3);
}
