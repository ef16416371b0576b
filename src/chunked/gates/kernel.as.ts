/** Forget gates: in log space, and that of MLGRU. */
import { BLOCK_ROWS, flushPart, roundTotal } from '../wasm/lib/blockSum.as';
import { exp1, hsum, madd, sigmoid4 } from '../wasm/lib/math.as';
import { sigmoidSlope4, softplus4 } from '../wasm/lib/softplus.as';
import { loadN, storeN } from '../wasm/lib/tail.as';

/** y = max(logsigmoid(x) * factor, low) over n floats; low = -Infinity for no clamp. */
export function logSigmoidGateFwd(x: usize, y: usize, n: i32, factor: f32, low: f32): void {
  const end = x + (<usize>(n & ~3) << 2), f = f32x4.splat(factor), l = f32x4.splat(low);
  for (; x < end; x += 16, y += 16) v128.store(y, f32x4.max(logSigmoid(v128.load(x), f), l));
  if (n & 3) storeN(y, f32x4.max(logSigmoid(loadN(x, n & 3), f), l), n & 3);
}

/** logsigmoid(x) * factor = -softplus(-x) * factor. */
// @ts-ignore: decorator
@inline
function logSigmoid(x: v128, factor: v128): v128 {
  return f32x4.neg(f32x4.mul(softplus4(f32x4.neg(x)), factor));
}

/** dx = dy * sigmoid(-x) * factor, 0 where the clamp holds. */
export function logSigmoidGateBwd(x: usize, dy: usize, dx: usize, n: i32, factor: f32, low: f32): void {
  const end = x + (<usize>(n & ~3) << 2), f = f32x4.splat(factor), l = f32x4.splat(low);
  for (; x < end; x += 16, dy += 16, dx += 16) gateBack(x, dy, dx, f, l, low > -Infinity, 4);
  if (n & 3) gateBack(x, dy, dx, f, l, low > -Infinity, n & 3);
}

// @ts-ignore: decorator
@inline
function gateBack(x: usize, dy: usize, dx: usize, factor: v128, low: v128, clamp: bool, lanes: i32): void {
  const v = loadN(x, lanes);
  const slope = f32x4.mul(f32x4.mul(loadN(dy, lanes), factor), sigmoid4(f32x4.neg(v)));
  storeN(dx, clamp ? v128.andnot(slope, f32x4.lt(logSigmoid(v, factor), low)) : slope, lanes);
}

/**
 * Kimi Delta Attention gate over `rows` tokens of H heads of K channels, with z = f + dtBias and a = exp(aLog) per head (1 when
 * aLog is 0): g = -a * softplus(z), or with a lower bound (bound < 0) g = bound * sigmoid(a * z). `scale` is scratch for H floats.
 */
export function kdaGateFwd(
  f: usize, aLog: usize, dtBias: usize, g: usize, rows: i32, H: i32, K: i32, bound: f32, scale: usize,
): void {
  headScales(aLog, scale, H);
  const stride = <usize>K << 2, end = stride & ~15;
  for (let row = 0; row < rows; row++)
    for (let h = 0; h < H; h++, f += stride, g += stride) {
      const a = v128.load32_splat(scale + (<usize>h << 2)), bias = dtBias + <usize>h * stride;
      for (let p: usize = 0; p < end; p += 16) storeN(g + p, gateOf(f + p, bias + p, a, bound, 4), 4);
      if (K & 3) storeN(g + end, gateOf(f + end, bias + end, a, bound, K & 3), K & 3);
    }
}

function headScales(aLog: usize, scale: usize, H: i32): void {
  for (let h = 0; h < H; h++) {
    const p = <usize>h << 2;
    store<f32>(scale + p, aLog ? exp1(load<f32>(aLog + p)) : 1);
  }
}

// @ts-ignore: decorator
@inline
function gateOf(f: usize, bias: usize, a: v128, bound: f32, lanes: i32): v128 {
  const z = f32x4.add(loadN(f, lanes), loadN(bias, lanes));
  if (bound < 0) return f32x4.mul(f32x4.splat(bound), sigmoid4(f32x4.mul(a, z)));
  return f32x4.neg(f32x4.mul(a, softplus4(z)));
}

/**
 * Standard: df = -a * sigmoid(z) * dg, daLog = sum dg * g. Lower bound, with s = sigmoid(a z) and di = bound * s * (1 - s) * dg:
 * df = a * di, daLog = sum di * a * z. Both: ddtBias = sum of df over tokens.
 * Scratch: scale H floats; part H * K + 4 * H floats (df per channel, then four lanes of daLog per head) and total as many doubles.
 */
export function kdaGateBwd(
  f: usize, aLog: usize, dtBias: usize, dg: usize, df: usize, daLog: usize, ddtBias: usize,
  rows: i32, H: i32, K: i32, bound: f32, scale: usize, part: usize, total: usize,
): void {
  headScales(aLog, scale, H);
  const stride = <usize>K << 2, end = stride & ~15, sums = H * K + 4 * H, heads = part + <usize>H * stride;
  memory.fill(part, 0, <usize>sums << 2);
  memory.fill(total, 0, <usize>sums << 3);
  for (let row = 0; row < rows; row++) {
    for (let h = 0; h < H; h++, f += stride, dg += stride, df += stride) {
      const a = v128.load32_splat(scale + (<usize>h << 2)), at = <usize>h * stride;
      let sum = f32x4.splat(0);
      for (let p: usize = 0; p < end; p += 16)
        sum = kdaCell(f + p, dtBias + at + p, dg + p, df + p, part + at + p, a, bound, sum, 4);
      if (K & 3) sum = kdaCell(f + end, dtBias + at + end, dg + end, df + end, part + at + end, a, bound, sum, K & 3);
      const head = heads + (<usize>h << 4);
      v128.store(head, f32x4.add(v128.load(head), sum));
    }
    if (row % BLOCK_ROWS == BLOCK_ROWS - 1 || row == rows - 1) flushPart(part, total, sums);
  }
  roundTotal(total, ddtBias, H * K);
  if (daLog) sumLanes(total + (<usize>(H * K) << 3), daLog, H);
}

/** df and its sum for dtBias are stored; returns `sum` plus this cell's part of daLog. */
// @ts-ignore: decorator
@inline
function kdaCell(
  f: usize, bias: usize, dg: usize, df: usize, part: usize, a: v128, bound: f32, sum: v128, lanes: i32,
): v128 {
  const z = f32x4.add(loadN(f, lanes), loadN(bias, lanes)), d = loadN(dg, lanes);
  let slope: v128, next: v128;
  if (bound < 0) {
    const az = f32x4.mul(a, z), di = f32x4.mul(f32x4.mul(f32x4.splat(bound), d), sigmoidSlope4(az));
    slope = f32x4.mul(a, di);
    next = madd(di, az, sum);
  } else {
    const minus = f32x4.neg(f32x4.mul(a, d));
    slope = f32x4.mul(minus, sigmoid4(z));
    next = madd(minus, softplus4(z), sum);
  }
  storeN(df, slope, lanes);
  storeN(part, f32x4.add(loadN(part, lanes), slope), lanes);
  return next;
}

/** out[h] = the sum of four doubles. */
function sumLanes(lanes: usize, out: usize, H: i32): void {
  for (let h = 0; h < H; h++, lanes += 32, out += 4)
    store<f32>(out, <f32>(load<f64>(lanes) + load<f64>(lanes, 8) + load<f64>(lanes, 16) + load<f64>(lanes, 24)));
}

/**
 * MLGRU, `rows` tokens of D channels: with q = 1 - bound (`bound` = 0: none), forget = q * sigmoid(-f), keep = 1 - forget and
 * input = silu(i) * forget.
 */
export function mlgruGateFwd(f: usize, i: usize, bound: usize, keep: usize, input: usize, rows: i32, D: i32): void {
  const stride = <usize>D << 2, end = stride & ~15;
  for (let row = 0; row < rows; row++, f += stride, i += stride, keep += stride, input += stride) {
    for (let p: usize = 0; p < end; p += 16) mlgruCell(f + p, i + p, bound, p, keep + p, input + p, 4);
    if (D & 3) mlgruCell(f + end, i + end, bound, end, keep + end, input + end, D & 3);
  }
}

// @ts-ignore: decorator
@inline
function freeShare(bound: usize, p: usize, lanes: i32): v128 {
  return bound ? f32x4.sub(f32x4.splat(1), loadN(bound + p, lanes)) : f32x4.splat(1);
}

// @ts-ignore: decorator
@inline
function mlgruCell(f: usize, i: usize, bound: usize, p: usize, keep: usize, input: usize, lanes: i32): void {
  const forget = f32x4.mul(freeShare(bound, p, lanes), sigmoid4(f32x4.neg(loadN(f, lanes)))), v = loadN(i, lanes);
  storeN(keep, f32x4.sub(f32x4.splat(1), forget), lanes);
  storeN(input, f32x4.mul(f32x4.mul(v, sigmoid4(v)), forget), lanes);
}

/**
 * With dForget = dInput * silu(i) - dKeep: df = -dForget * q * sigmoid'(f), di = dInput * forget * silu'(i), dBound = the sum over tokens of
 * -dForget * sigmoid(-f). `part` (D floats) and `total` (D doubles) are scratch for dBound; unused where `bound` is 0.
 */
export function mlgruGateBwd(
  f: usize, i: usize, bound: usize, dKeep: usize, dInput: usize, df: usize, di: usize, dBound: usize,
  rows: i32, D: i32, part: usize, total: usize,
): void {
  const stride = <usize>D << 2, end = stride & ~15;
  if (bound) {
    memory.fill(part, 0, stride);
    memory.fill(total, 0, stride << 1);
  }
  for (let row = 0; row < rows; row++) {
    for (let p: usize = 0; p < end; p += 16)
      mlgruBack(f + p, i + p, bound, p, dKeep + p, dInput + p, df + p, di + p, part + p, 4);
    if (D & 3) mlgruBack(f + end, i + end, bound, end, dKeep + end, dInput + end, df + end, di + end, part + end, D & 3);
    if (bound && (row % BLOCK_ROWS == BLOCK_ROWS - 1 || row == rows - 1)) flushPart(part, total, D);
    f += stride;
    i += stride;
    dKeep += stride;
    dInput += stride;
    df += stride;
    di += stride;
  }
  if (bound) roundTotal(total, dBound, D);
}

// @ts-ignore: decorator
@inline
function mlgruBack(
  f: usize, i: usize, bound: usize, p: usize, dKeep: usize, dInput: usize, df: usize, di: usize, part: usize, lanes: i32,
): void {
  const z = loadN(f, lanes), v = loadN(i, lanes), s = sigmoid4(v), d = loadN(dInput, lanes);
  const q = freeShare(bound, p, lanes), open = sigmoid4(f32x4.neg(z));
  const minus = f32x4.sub(loadN(dKeep, lanes), f32x4.mul(d, f32x4.mul(v, s))); // -dForget
  const slope = f32x4.mul(s, madd(v, f32x4.sub(f32x4.splat(1), s), f32x4.splat(1)));
  storeN(df, f32x4.mul(f32x4.mul(minus, q), sigmoidSlope4(z)), lanes);
  storeN(di, f32x4.mul(f32x4.mul(d, f32x4.mul(q, open)), slope), lanes);
  if (bound) storeN(part, madd(minus, open, loadN(part, lanes)), lanes);
}
