/**
 * Batch norm over `rows` rows of D features: with n = (x - mean) * r and r = (variance + eps)^-1/2 per feature, y = n * weight + bias.
 * `weight` or `bias` = 0: absent. Sums over rows: 32 rows in float32 (`part`), the blocks in float64 (`total`).
 * `mean` is 2D floats: the means rounded, then what rounding took from them. Rounded ones alone would shift every row of a feature the
 * same way, which sums over many rows would show.
 */
import { BLOCK_ROWS, flushPart, roundTotal } from '../wasm/lib/blockSum.as';
import { madd } from '../wasm/lib/math.as';
import { copyRow, loadN, storeN } from '../wasm/lib/tail.as';

/**
 * Mean and biased variance of every feature: first a mean to float32 accuracy, then the sums of d = x - mean and of d^2, which give what
 * the first lacks and the variance. `part` 2D floats, `total` 2D doubles.
 */
export function batchNormStatistics(x: usize, mean: usize, variance: usize, rows: i32, D: i32, part: usize, total: usize): void {
  const stride = <usize>D << 2;
  memory.fill(mean, 0, stride);
  sumRows(x, mean, rows, D, part, total);
  meanOfTotal(total, mean, rows, D);
  sumRows(x, mean, rows, D, part, total);
  for (let i = 0; i < D; i++, mean += 4, variance += 4, total += 8) {
    const lack = load<f64>(total) / <f64>rows;
    store<f32>(mean + stride, <f32>lack);
    store<f32>(variance, <f32>(load<f64>(total + (stride << 1)) / <f64>rows - lack * lack));
  }
}

/** total = sums over rows of x - mean, then of its square. */
function sumRows(x: usize, mean: usize, rows: i32, D: i32, part: usize, total: usize): void {
  const stride = <usize>D << 2, full = stride & ~15;
  memory.fill(part, 0, stride << 1);
  memory.fill(total, 0, stride << 2);
  for (let row = 0; row < rows; row++, x += stride) {
    for (let p: usize = 0; p < full; p += 16) addCell(x + p, mean + p, part + p, stride, 4);
    if (D & 3) addCell(x + full, mean + full, part + full, stride, D & 3);
    if (row % BLOCK_ROWS == BLOCK_ROWS - 1 || row == rows - 1) flushPart(part, total, 2 * D);
  }
}

// @ts-ignore: decorator
@inline
function addCell(x: usize, mean: usize, part: usize, stride: usize, lanes: i32): void {
  const d = f32x4.sub(loadN(x, lanes), loadN(mean, lanes));
  storeN(part, f32x4.add(loadN(part, lanes), d), lanes);
  storeN(part + stride, madd(d, d, loadN(part + stride, lanes)), lanes);
}

/** x - mean. */
// @ts-ignore: decorator
@inline
function centred(x: v128, mean: usize, stride: usize, lanes: i32): v128 {
  return f32x4.sub(f32x4.sub(x, loadN(mean, lanes)), loadN(mean + stride, lanes));
}

function meanOfTotal(total: usize, out: usize, rows: i32, D: i32): void {
  for (let i = 0; i < D; i++, total += 8, out += 4) store<f32>(out, <f32>(load<f64>(total) / <f64>rows));
}

/** Statistics as given; nothing was rounded off. */
export function batchNormGiven(runningMean: usize, runningVar: usize, mean: usize, variance: usize, D: i32): void {
  batchNormCopy(runningMean, runningVar, mean, variance, D);
  memory.fill(mean + (<usize>D << 2), 0, <usize>D << 2);
}

/** The two statistics, copied. */
export function batchNormCopy(mean: usize, variance: usize, toMean: usize, toVariance: usize, D: i32): void {
  copyRow(mean, toMean, D);
  copyRow(variance, toVariance, D);
}

/** `root` is scratch for D floats. */
export function batchNormFwd(
  x: usize, weight: usize, bias: usize, mean: usize, variance: usize, y: usize, rows: i32, D: i32, eps: f64, root: usize,
): void {
  const stride = <usize>D << 2, full = stride & ~15;
  inverseRoots(variance, root, D, eps);
  for (let row = 0; row < rows; row++, x += stride, y += stride) {
    for (let p: usize = 0; p < full; p += 16) forward(x + p, weight, bias, mean + p, stride, root + p, p, y + p, 4);
    if (D & 3) forward(x + full, weight, bias, mean + full, stride, root + full, full, y + full, D & 3);
  }
}

function inverseRoots(variance: usize, root: usize, D: i32, eps: f64): void {
  for (let i = 0; i < D; i++, variance += 4, root += 4)
    store<f32>(root, <f32>(1 / sqrt<f64>(<f64>load<f32>(variance) + eps)));
}

// @ts-ignore: decorator
@inline
function forward(
  x: usize, weight: usize, bias: usize, mean: usize, stride: usize, root: usize, p: usize, y: usize, lanes: i32,
): void {
  let v = f32x4.mul(centred(loadN(x, lanes), mean, stride, lanes), loadN(root, lanes));
  if (weight) v = f32x4.mul(v, loadN(weight + p, lanes));
  if (bias) v = f32x4.add(v, loadN(bias + p, lanes));
  storeN(y, v, lanes);
}

/**
 * dWeight = sum of dy * n, dBias = sum of dy, and dx = weight * r * dy, in training weight * r * (dy - dBias / rows - n * dWeight / rows).
 * Scratch: `part` 3D floats (two sums, then the roots), `total` 2D doubles. `dWeight` or `dBias` = 0: not wanted.
 */
export function batchNormBwd(
  x: usize, weight: usize, dy: usize, mean: usize, variance: usize, dx: usize, dWeight: usize, dBias: usize,
  rows: i32, D: i32, eps: f64, training: i32, part: usize, total: usize,
): void {
  const stride = <usize>D << 2, full = stride & ~15, root = part + (stride << 1);
  inverseRoots(variance, root, D, eps);
  memory.fill(part, 0, stride << 1);
  memory.fill(total, 0, stride << 2);
  for (let row = 0, xr = x, dr = dy; row < rows; row++, xr += stride, dr += stride) {
    for (let p: usize = 0; p < full; p += 16) addGrads(xr + p, dr + p, mean + p, root + p, part + p, stride, 4);
    if (D & 3) addGrads(xr + full, dr + full, mean + full, root + full, part + full, stride, D & 3);
    if (row % BLOCK_ROWS == BLOCK_ROWS - 1 || row == rows - 1) flushPart(part, total, 2 * D);
  }
  if (dWeight) roundTotal(total, dWeight, D);
  if (dBias) roundTotal(total + (stride << 1), dBias, D);
  if (training) meanOfTotal(total, part, rows, 2 * D); // else the zeros that flushPart left
  for (let row = 0; row < rows; row++, x += stride, dy += stride, dx += stride) {
    for (let p: usize = 0; p < full; p += 16) backward(x + p, weight, dy + p, mean + p, root + p, part + p, stride, p, dx + p, 4);
    if (D & 3) backward(x + full, weight, dy + full, mean + full, root + full, part + full, stride, full, dx + full, D & 3);
  }
}

// @ts-ignore: decorator
@inline
function addGrads(x: usize, dy: usize, mean: usize, root: usize, part: usize, stride: usize, lanes: i32): void {
  const d = loadN(dy, lanes), n = f32x4.mul(centred(loadN(x, lanes), mean, stride, lanes), loadN(root, lanes));
  storeN(part, madd(d, n, loadN(part, lanes)), lanes);
  storeN(part + stride, f32x4.add(d, loadN(part + stride, lanes)), lanes);
}

// @ts-ignore: decorator
@inline
function backward(
  x: usize, weight: usize, dy: usize, mean: usize, root: usize, means: usize, stride: usize, p: usize, dx: usize, lanes: i32,
): void {
  const r = loadN(root, lanes), n = f32x4.mul(centred(loadN(x, lanes), mean, stride, lanes), r);
  const c = f32x4.sub(loadN(dy, lanes), loadN(means + stride, lanes));
  const d = f32x4.mul(f32x4.sub(c, f32x4.mul(n, loadN(means, lanes))), r);
  storeN(dx, weight ? f32x4.mul(d, loadN(weight + p, lanes)) : d, lanes);
}
