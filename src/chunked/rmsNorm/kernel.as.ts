/**
 * Norms of rows: y = x * r * weight [* act(gate)] with r = (meanFactor * sum x^2 + eps)^-1/2; meanFactor is 1 / D for the mean
 * square (RMS), 1 for the L2 norm. `weight` = 0: all ones. The derivation of the gradients is in README.md.
 */
import { BLOCK_ROWS, flushPart, roundTotal, sumSquares } from '../wasm/lib/blockSum.as';
import { hsum, madd, sigmoid4 } from '../wasm/lib/math.as';
import { loadN, storeN } from '../wasm/lib/tail.as';

export function rmsNormFwd(x: usize, weight: usize, y: usize, rows: i32, D: i32, meanFactor: f64, eps: f64): void {
  const stride = <usize>D << 2, end = stride & ~15;
  for (let row = 0; row < rows; row++, x += stride, y += stride) {
    const r = f32x4.splat(<f32>(1 / sqrt<f64>(meanFactor * sumSquares(x, D) + eps)));
    for (let p: usize = 0; p < end; p += 16) scaleCell(x + p, weight, p, y + p, r, 4);
    if (D & 3) scaleCell(x + end, weight, end, y + end, r, D & 3);
  }
}

// @ts-ignore: decorator
@inline
function scaleCell(x: usize, weight: usize, p: usize, y: usize, r: v128, lanes: i32): void {
  storeN(y, weighted(f32x4.mul(loadN(x, lanes), r), weight, p, lanes), lanes);
}

// @ts-ignore: decorator
@inline
function weighted(v: v128, weight: usize, p: usize, lanes: i32): v128 {
  return weight ? f32x4.mul(v, loadN(weight + p, lanes)) : v;
}

/** Sum of x * u over the row, with u = dy * weight. */
function dotUpstream(x: usize, weight: usize, dy: usize, D: i32): f32 {
  const end = (<usize>D << 2) & ~15;
  let sum = f32x4.splat(0);
  for (let p: usize = 0; p < end; p += 16)
    sum = madd(v128.load(x + p), weighted(v128.load(dy + p), weight, p, 4), sum);
  if (D & 3) sum = madd(loadN(x + end, D & 3), weighted(loadN(dy + end, D & 3), weight, end, D & 3), sum);
  return hsum(sum);
}

/**
 * dx = r * u - x * r^3 * meanFactor * sum(x * u), dWeight = sum over rows of dy * x * r.
 * `part` (D floats) and `total` (D doubles) are scratch for dWeight; all three are unused when `weight` is 0.
 */
export function rmsNormBwd(
  x: usize, weight: usize, dy: usize, dx: usize, dWeight: usize,
  rows: i32, D: i32, meanFactor: f64, eps: f64, part: usize, total: usize,
): void {
  const stride = <usize>D << 2, end = stride & ~15;
  if (weight) clearSums(part, total, stride);
  for (let row = 0; row < rows; row++, x += stride, dy += stride, dx += stride) {
    const r = 1 / sqrt<f64>(meanFactor * sumSquares(x, D) + eps);
    const r4 = f32x4.splat(<f32>r);
    const back = f32x4.splat(<f32>(-r * r * r * meanFactor * <f64>dotUpstream(x, weight, dy, D)));
    for (let p: usize = 0; p < end; p += 16) normCell(x + p, weight, p, dy + p, dx + p, part, r4, back, 4);
    if (D & 3) normCell(x + end, weight, end, dy + end, dx + end, part, r4, back, D & 3);
    if (weight && (row % BLOCK_ROWS == BLOCK_ROWS - 1 || row == rows - 1)) flushPart(part, total, D);
  }
  if (weight) roundTotal(total, dWeight, D);
}

// @ts-ignore: decorator
@inline
function clearSums(part: usize, total: usize, bytes: usize): void {
  memory.fill(part, 0, bytes);
  memory.fill(total, 0, bytes << 1);
}

// @ts-ignore: decorator
@inline
function normCell(x: usize, weight: usize, p: usize, dy: usize, dx: usize, part: usize, r: v128, back: v128, lanes: i32): void {
  const xv = loadN(x, lanes), d = f32x4.mul(loadN(dy, lanes), r);
  storeN(dx, madd(xv, back, weighted(d, weight, p, lanes)), lanes);
  if (weight) storeN(part + p, madd(d, xv, loadN(part + p, lanes)), lanes);
}

/** y = x * r * weight * act(gate); act is silu, or sigmoid when `silu` is 0. */
export function gatedRmsNormFwd(
  x: usize, gate: usize, weight: usize, y: usize, rows: i32, D: i32, eps: f64, silu: i32,
): void {
  const stride = <usize>D << 2, end = stride & ~15, meanFactor = 1 / <f64>D;
  for (let row = 0; row < rows; row++, x += stride, gate += stride, y += stride) {
    const r = f32x4.splat(<f32>(1 / sqrt<f64>(meanFactor * sumSquares(x, D) + eps)));
    for (let p: usize = 0; p < end; p += 16) gateCell(x + p, gate + p, weight, p, y + p, r, silu, 4);
    if (D & 3) gateCell(x + end, gate + end, weight, end, y + end, r, silu, D & 3);
  }
}

// @ts-ignore: decorator
@inline
function gateCell(x: usize, gate: usize, weight: usize, p: usize, y: usize, r: v128, silu: i32, lanes: i32): void {
  const g = loadN(gate, lanes), s = sigmoid4(g);
  const act = silu ? f32x4.mul(g, s) : s;
  storeN(y, f32x4.mul(weighted(f32x4.mul(loadN(x, lanes), r), weight, p, lanes), act), lanes);
}

/**
 * With a = act(gate), u = dy * a * weight: dx and dWeight as in `rmsNormBwd` with dy * a for dy, dGate = dy * x * r * weight * a'.
 * The first pass over a row leaves sigmoid(gate) in dGate for the second.
 */
export function gatedRmsNormBwd(
  x: usize, gate: usize, weight: usize, dy: usize, dx: usize, dGate: usize, dWeight: usize,
  rows: i32, D: i32, eps: f64, silu: i32, part: usize, total: usize,
): void {
  const stride = <usize>D << 2, end = stride & ~15, meanFactor = 1 / <f64>D;
  if (weight) clearSums(part, total, stride);
  for (let row = 0; row < rows; row++, x += stride, gate += stride, dy += stride, dx += stride, dGate += stride) {
    let dot = f32x4.splat(0);
    for (let p: usize = 0; p < end; p += 16)
      dot = dotGated(x + p, gate + p, weight, p, dy + p, dGate + p, dot, silu, 4);
    if (D & 3) dot = dotGated(x + end, gate + end, weight, end, dy + end, dGate + end, dot, silu, D & 3);
    const r = 1 / sqrt<f64>(meanFactor * sumSquares(x, D) + eps);
    const r4 = f32x4.splat(<f32>r), back = f32x4.splat(<f32>(-r * r * r * meanFactor * <f64>hsum(dot)));
    for (let p: usize = 0; p < end; p += 16)
      gatedCell(x + p, gate + p, weight, p, dy + p, dx + p, dGate + p, part, r4, back, silu, 4);
    if (D & 3) gatedCell(x + end, gate + end, weight, end, dy + end, dx + end, dGate + end, part, r4, back, silu, D & 3);
    if (weight && (row % BLOCK_ROWS == BLOCK_ROWS - 1 || row == rows - 1)) flushPart(part, total, D);
  }
  if (weight) roundTotal(total, dWeight, D);
}

// @ts-ignore: decorator
@inline
function dotGated(
  x: usize, gate: usize, weight: usize, p: usize, dy: usize, sigmoid: usize, dot: v128, silu: i32, lanes: i32,
): v128 {
  const g = loadN(gate, lanes), s = sigmoid4(g);
  storeN(sigmoid, s, lanes);
  const u = f32x4.mul(weighted(loadN(dy, lanes), weight, p, lanes), silu ? f32x4.mul(g, s) : s);
  return madd(loadN(x, lanes), u, dot);
}

// @ts-ignore: decorator
@inline
function gatedCell(
  x: usize, gate: usize, weight: usize, p: usize, dy: usize, dx: usize, dGate: usize, part: usize,
  r: v128, back: v128, silu: i32, lanes: i32,
): void {
  const xv = loadN(x, lanes), s = loadN(dGate, lanes), notS = f32x4.sub(f32x4.splat(1), s);
  let act = s, slope = f32x4.mul(s, notS);
  if (silu) {
    const g = loadN(gate, lanes);
    act = f32x4.mul(g, s);
    slope = f32x4.mul(s, madd(g, notS, f32x4.splat(1)));
  }
  const d = f32x4.mul(loadN(dy, lanes), r), dAct = f32x4.mul(d, act);
  storeN(dx, madd(xv, back, weighted(dAct, weight, p, lanes)), lanes);
  storeN(dGate, f32x4.mul(weighted(f32x4.mul(d, xv), weight, p, lanes), slope), lanes);
  if (weight) storeN(part + p, madd(dAct, xv, loadN(part + p, lanes)), lanes);
}
