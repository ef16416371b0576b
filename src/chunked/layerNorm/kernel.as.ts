/** Layer norm of rows: with n = (x - mean) * r and r = (variance + eps)^-1/2, y = n * weight + bias. `weight` or `bias` = 0: absent. */
import { BLOCK_ROWS, flushPart, roundTotal } from '../wasm/lib/blockSum.as';
import { hsum, madd } from '../wasm/lib/math.as';
import { loadN, storeN } from '../wasm/lib/tail.as';

export function layerNormFwd(x: usize, weight: usize, bias: usize, y: usize, rows: i32, D: i32, eps: f64): void {
  const stride = <usize>D << 2, full = stride & ~15;
  for (let row = 0; row < rows; row++, x += stride, y += stride) {
    const mean = f32x4.splat(rowMean(x, D));
    const r = f32x4.splat(<f32>(1 / sqrt<f64>(rowVariance(x, D, mean) + eps)));
    for (let p: usize = 0; p < full; p += 16) forward(x + p, weight, bias, p, y + p, mean, r, 4);
    if (D & 3) forward(x + full, weight, bias, full, y + full, mean, r, D & 3);
  }
}

// @ts-ignore: decorator
@inline
function forward(x: usize, weight: usize, bias: usize, p: usize, y: usize, mean: v128, r: v128, lanes: i32): void {
  let v = f32x4.mul(f32x4.sub(loadN(x, lanes), mean), r);
  if (weight) v = f32x4.mul(v, loadN(weight + p, lanes));
  if (bias) v = f32x4.add(v, loadN(bias + p, lanes));
  storeN(y, v, lanes);
}

/** Blocks of 1024 in float32, the blocks in float64. */
function rowMean(x: usize, D: i32): f32 {
  let total: f64 = 0;
  for (let done = 0; done < D; done += 1024) {
    let sum = f32x4.splat(0), i = done;
    const end = min(D, done + 1024);
    for (; i + 4 <= end; i += 4, x += 16) sum = f32x4.add(sum, v128.load(x));
    if (i < end) sum = f32x4.add(sum, loadN(x, end - i));
    total += <f64>hsum(sum);
  }
  return <f32>(total / <f64>D);
}

function rowVariance(x: usize, D: i32, mean: v128): f64 {
  let total: f64 = 0;
  for (let done = 0; done < D; done += 1024) {
    let sum = f32x4.splat(0), i = done;
    const end = min(D, done + 1024);
    for (; i + 4 <= end; i += 4, x += 16) {
      const c = f32x4.sub(v128.load(x), mean);
      sum = madd(c, c, sum);
    }
    for (; i < end; i++, x += 4) {
      const c = f32x4.sub(v128.load_zero<f32>(x), mean);
      sum = f32x4.add(sum, v128.and(f32x4.mul(c, c), i32x4(-1, 0, 0, 0)));
    }
    total += <f64>hsum(sum);
  }
  return total / <f64>D;
}

/**
 * With u = dy * weight: dx = r * (u - mean(u) - n * mean(u * n)), dWeight = sum over rows of dy * n, dBias = sum over rows of dy.
 * `part` (2D floats) and `total` (2D doubles) are scratch: first for dWeight, then for dBias; `dWeight` or `dBias` = 0: not wanted.
 */
export function layerNormBwd(
  x: usize, weight: usize, dy: usize, dx: usize, dWeight: usize, dBias: usize,
  rows: i32, D: i32, eps: f64, part: usize, total: usize,
): void {
  const stride = <usize>D << 2, full = stride & ~15;
  memory.fill(part, 0, stride << 1);
  memory.fill(total, 0, stride << 2);
  for (let row = 0; row < rows; row++, x += stride, dy += stride, dx += stride) {
    const mean = f32x4.splat(rowMean(x, D));
    const r = f32x4.splat(<f32>(1 / sqrt<f64>(rowVariance(x, D, mean) + eps)));
    for (let p: usize = 0; p < full; p += 16) project(x + p, weight, p, dy + p, dx + p, part, stride, mean, r, 4);
    if (D & 3) project(x + full, weight, full, dy + full, dx + full, part, stride, mean, r, D & 3);
    const meanU = f32x4.splat(rowMean(dx, D)), meanUn = f32x4.splat(scaledDot(x, dx, D, mean, r));
    for (let p: usize = 0; p < full; p += 16) backward(x + p, dx + p, mean, r, meanU, meanUn, 4);
    if (D & 3) backward(x + full, dx + full, mean, r, meanU, meanUn, D & 3);
    if (row % BLOCK_ROWS == BLOCK_ROWS - 1 || row == rows - 1) flushPart(part, total, 2 * D);
  }
  if (dWeight) roundTotal(total, dWeight, D);
  if (dBias) roundTotal(total + (stride << 1), dBias, D);
}

/** Leaves u in dx and adds to the sums. */
// @ts-ignore: decorator
@inline
function project(
  x: usize, weight: usize, p: usize, dy: usize, dx: usize, part: usize, stride: usize, mean: v128, r: v128, lanes: i32,
): void {
  const d = loadN(dy, lanes), n = f32x4.mul(f32x4.sub(loadN(x, lanes), mean), r);
  storeN(dx, weight ? f32x4.mul(d, loadN(weight + p, lanes)) : d, lanes);
  const sums = part + p;
  storeN(sums, madd(d, n, loadN(sums, lanes)), lanes);
  storeN(sums + stride, f32x4.add(d, loadN(sums + stride, lanes)), lanes);
}

/** mean of u * n over the row. */
function scaledDot(x: usize, u: usize, D: i32, mean: v128, r: v128): f32 {
  let total: f64 = 0;
  for (let done = 0; done < D; done += 1024) {
    let sum = f32x4.splat(0), i = done;
    const end = min(D, done + 1024);
    for (; i < end; i += 4, x += 16, u += 16) {
      const lanes = min(4, end - i);
      sum = madd(f32x4.mul(f32x4.sub(loadN(x, lanes), mean), r), loadN(u, lanes), sum); // a missing lane of u is 0
    }
    total += <f64>hsum(sum);
  }
  return <f32>(total / <f64>D);
}

// @ts-ignore: decorator
@inline
function backward(x: usize, dx: usize, mean: v128, r: v128, meanU: v128, meanUn: v128, lanes: i32): void {
  const n = f32x4.mul(f32x4.sub(loadN(x, lanes), mean), r), u = f32x4.sub(loadN(dx, lanes), meanU);
  storeN(dx, f32x4.mul(r, f32x4.sub(u, f32x4.mul(n, meanUn))), lanes);
}
