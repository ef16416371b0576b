/**
 * Sums over many rows without loss: a few rows are added in float32 (`part`), then the block goes into a float64 `total`.
 * A gradient of a shared weight sums over every token of a batch; one float32 sum of 1e5 terms would lose 2 to 3 digits.
 */

import { hsum, madd } from './math.as';
import { loadN } from './tail.as';

/** Rows added in float32 before `flushPart`. */
// @ts-ignore: decorator
@inline
export const BLOCK_ROWS: i32 = 32;

/** total[i] += part[i] for n floats, then part = 0. */
export function flushPart(part: usize, total: usize, n: i32): void {
  let i = 0;
  for (; i + 4 <= n; i += 4, part += 16, total += 32) {
    const x = v128.load(part);
    const high = i8x16.shuffle(x, x, 8, 9, 10, 11, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15);
    v128.store(total, f64x2.add(v128.load(total), f64x2.promote_low_f32x4(x)));
    v128.store(total + 16, f64x2.add(v128.load(total + 16), f64x2.promote_low_f32x4(high)));
    v128.store(part, f32x4.splat(0));
  }
  for (; i < n; i++, part += 4, total += 8) {
    store<f64>(total, load<f64>(total) + <f64>load<f32>(part));
    store<f32>(part, 0);
  }
}

/** out[i] = float32(total[i]). */
export function roundTotal(total: usize, out: usize, n: i32): void {
  for (let i = 0; i < n; i++, total += 8, out += 4) store<f32>(out, <f32>load<f64>(total));
}

/** Sum of squares of n floats: blocks of 1024 in float32, four sums in flight, the blocks in float64. */
export function sumSquares(x: usize, n: i32): f64 {
  let total: f64 = 0;
  for (let done = 0; done < n; done += 1024, x += 4096) total += <f64>blockSquares(x, min(1024, n - done));
  return total;
}

// @ts-ignore: decorator
@inline
function blockSquares(x: usize, n: i32): f32 {
  let a = f32x4.splat(0), b = a, c = a, d = a, i = 0;
  for (; i + 16 <= n; i += 16, x += 64) {
    const p = v128.load(x), q = v128.load(x, 16), r = v128.load(x, 32), s = v128.load(x, 48);
    a = madd(p, p, a);
    b = madd(q, q, b);
    c = madd(r, r, c);
    d = madd(s, s, d);
  }
  for (; i < n; i += 4, x += 16) {
    const p = loadN(x, n - i);
    a = madd(p, p, a);
  }
  return hsum(f32x4.add(f32x4.add(a, b), f32x4.add(c, d)));
}
