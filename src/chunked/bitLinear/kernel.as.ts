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

/**
 * Rows of whole numbers (floats, D of them) as int8 in the order of packed weights, `padded` (a multiple of 64) bytes a row: number i of 64
 * goes to byte 16 (i mod 4) + i / 4, so that the lanes of (weights >> 2k) & 3 meet those of part k. `sums` gets the sum of each row.
 */
export function bitInterleave(values: usize, bytes: usize, sums: usize, rows: i32, D: i32, padded: i32): void {
  memory.fill(bytes, 0, <usize>rows * <usize>padded);
  for (let row = 0; row < rows; row++, bytes += padded, sums += 4) {
    let sum = 0;
    for (let i = 0; i < D; i++, values += 4) {
      const value = <i32>load<f32>(values);
      store<i8>(bytes + (i & ~63) + ((i & 3) << 4) + ((i & 63) >> 2), <i8>value);
      sum += value;
    }
    store<i32>(sums, sum);
  }
}

/**
 * out [rows, O] = (sum of y u - sum of y) / (scale of the row * scale), u = weight + 1 in two bits, 64 weights in 16 bytes. A block of 64 adds at
 * most 8 * 256 to a lane of 16 bits, then it goes into one of 32.
 */
export function bitPackedProduct(
  bytes: usize, sums: usize, scales: usize, packed: usize, out: usize, rows: i32, O: i32, padded: i32, scale: f32,
): void {
  let row = 0;
  for (; row + 4 <= rows; row += 4) {
    fourRows(bytes, sums, scales, packed, out, O, padded, scale);
    bytes += padded << 2;
    sums += 16;
    scales += 16;
    out += <usize>O << 4;
  }
  for (; row < rows; row++, bytes += padded, sums += 4, scales += 4, out += <usize>O << 2)
    oneRow(bytes, load<i32>(sums), load<f32>(scales) * scale, packed, out, O, padded);
}

function oneRow(bytes: usize, sum: i32, divisor: f32, packed: usize, out: usize, O: i32, padded: i32): void {
  for (let o = 0; o < O; o++) {
    let acc = i32x4.splat(0);
    for (let p = 0; p < padded; p += 64, packed += 16) {
      const w = v128.load(packed);
      acc = addBlock(acc, bytes + p, part(w, 0), part(w, 2), part(w, 4), part(w, 6));
    }
    store<f32>(out + (<usize>o << 2), <f32>(sumOf(acc) - sum) / divisor);
  }
}

function fourRows(bytes: usize, sums: usize, scales: usize, packed: usize, out: usize, O: i32, padded: i32, scale: f32): void {
  const stride = <usize>O << 2, b1 = bytes + padded, b2 = b1 + padded, b3 = b2 + padded;
  for (let o = 0; o < O; o++, out += 4) {
    let acc0 = i32x4.splat(0), acc1 = acc0, acc2 = acc0, acc3 = acc0;
    for (let p = 0; p < padded; p += 64, packed += 16) {
      const w = v128.load(packed), u0 = part(w, 0), u1 = part(w, 2), u2 = part(w, 4), u3 = part(w, 6);
      acc0 = addBlock(acc0, bytes + p, u0, u1, u2, u3);
      acc1 = addBlock(acc1, b1 + p, u0, u1, u2, u3);
      acc2 = addBlock(acc2, b2 + p, u0, u1, u2, u3);
      acc3 = addBlock(acc3, b3 + p, u0, u1, u2, u3);
    }
    store<f32>(out, <f32>(sumOf(acc0) - load<i32>(sums)) / (load<f32>(scales) * scale));
    store<f32>(out + stride, <f32>(sumOf(acc1) - load<i32>(sums, 4)) / (load<f32>(scales, 4) * scale));
    store<f32>(out + 2 * stride, <f32>(sumOf(acc2) - load<i32>(sums, 8)) / (load<f32>(scales, 8) * scale));
    store<f32>(out + 3 * stride, <f32>(sumOf(acc3) - load<i32>(sums, 12)) / (load<f32>(scales, 12) * scale));
  }
}

/** Sixteen weights: two bits of each byte. What a shift of 16 bits brings in from the next byte is masked away. */
// @ts-ignore: decorator
@inline
function part(w: v128, shift: i32): v128 {
  return v128.and(i16x8.shr_u(w, shift), i8x16.splat(3));
}

// @ts-ignore: decorator
@inline
function addBlock(acc: v128, y: usize, u0: v128, u1: v128, u2: v128, u3: v128): v128 {
  const low = i16x8.add(dot(v128.load(y), u0), dot(v128.load(y, 16), u1));
  const high = i16x8.add(dot(v128.load(y, 32), u2), dot(v128.load(y, 48), u3));
  return i32x4.add(acc, i32x4.extadd_pairwise_i16x8_s(i16x8.add(low, high)));
}

/** Eight sums of two products of int8 and u <= 2. */
// @ts-ignore: decorator
@inline
function dot(y: v128, u: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) return i16x8.relaxed_dot_i8x16_i7x16_s(y, u);
  return i16x8.add(i16x8.extmul_low_i8x16_s(y, u), i16x8.extmul_high_i8x16_s(y, u));
}

// @ts-ignore: decorator
@inline
function sumOf(x: v128): i32 {
  return i32x4.extract_lane(x, 0) + i32x4.extract_lane(x, 1) + i32x4.extract_lane(x, 2) + i32x4.extract_lane(x, 3);
}
