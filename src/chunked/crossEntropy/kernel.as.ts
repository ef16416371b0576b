/**
 * Cross entropy of logits x [N, V] with targets t [N], row by row. With m = max x and S = the sum of exp(x_j - m) over all j but one
 * where x_j = m (so the sum of all is 1 + S):
 *
 *   loss = (m - x_t) + log1p(S),   dx_j = dy * exp(x_j - m) / (1 + S),   dx_t = that - dy
 *
 * S keeps its digits where it is tiny, so a loss of 1e-12 is 1e-12 and not the rounding error of a 1. `stats` has m and S of each row.
 */
import { expBelow89, hsum } from '../wasm/lib/math.as';
import { loadN, storeN } from '../wasm/lib/tail.as';

/** `mean`: one loss, the mean in float64 over rows that are not `ignored` (0 if there is none); else one loss a row. */
export function crossEntropyFwd(
  x: usize, targets: usize, loss: usize, stats: usize, N: i32, V: i32, ignored: i32, mean: i32,
): void {
  const stride = <usize>V << 2;
  let total: f64 = 0;
  for (let row = 0; row < N; row++, x += stride, stats += 8) {
    const t = load<i32>(targets + (<usize>row << 2));
    let nats: f64 = 0;
    if (t != ignored) nats = rowLoss(x, V, t, stats);
    total += nats;
    if (!mean) store<f32>(loss + (<usize>row << 2), <f32>nats);
  }
  if (mean) store<f32>(loss, <f32>(total / <f64>max(1, countKept(targets, N, ignored))));
}

/** dy is one float when `mean`, else one a row. Ignored rows of dx are 0. */
export function crossEntropyBwd(
  x: usize, targets: usize, stats: usize, dy: usize, dx: usize, N: i32, V: i32, ignored: i32, mean: i32,
): void {
  const stride = <usize>V << 2;
  const count: f64 = mean ? <f64>max(1, countKept(targets, N, ignored)) : 1;
  for (let row = 0; row < N; row++, x += stride, dx += stride, stats += 8) {
    const t = load<i32>(targets + (<usize>row << 2));
    if (t == ignored) memory.fill(dx, 0, stride);
    else rowGradient(x, dx, V, t, stats, <f64>load<f32>(dy) / count);
    if (!mean) dy += 4;
  }
}

function countKept(targets: usize, N: i32, ignored: i32): i32 {
  let kept = 0;
  for (const end = targets + (<usize>N << 2); targets < end; targets += 4) kept += i32(load<i32>(targets) != ignored);
  return kept;
}

// @ts-ignore: decorator
@inline
function rowLoss(x: usize, V: i32, t: i32, stats: usize): f64 {
  const m = rowMax(x, V), S = sumExp(x, V, m) + <f64>(m - m); // NaN where the largest logit is infinite
  store<f32>(stats, m);
  store<f32>(stats, <f32>S, 4);
  return <f64>m - <f64>load<f32>(x + (<usize>t << 2)) + Math.log1p(S);
}

/** A NaN is passed over here (pmax); it comes out of the sum of exponentials. */
function rowMax(x: usize, V: i32): f32 {
  let a = f32x4.splat(-Infinity), b = a, c = a, d = a, i = 0;
  for (; i + 16 <= V; i += 16, x += 64) {
    a = f32x4.pmax(a, v128.load(x));
    b = f32x4.pmax(b, v128.load(x, 16));
    c = f32x4.pmax(c, v128.load(x, 32));
    d = f32x4.pmax(d, v128.load(x, 48));
  }
  for (; i < V; i++, x += 4) a = f32x4.pmax(a, v128.load32_splat(x));
  a = f32x4.pmax(f32x4.pmax(a, b), f32x4.pmax(c, d));
  const p = f32x4.extract_lane(a, 0), q = f32x4.extract_lane(a, 1), r = f32x4.extract_lane(a, 2), s = f32x4.extract_lane(a, 3);
  return max(max(p, q), max(r, s));
}

/** S: blocks of 1024 in float32, the blocks in float64; logits equal to m are counted apart. */
function sumExp(x: usize, V: i32, m: f32): f64 {
  const top = f32x4.splat(m);
  let sum: f64 = 0, tops = 0;
  for (let left = V; left > 0; left -= 1024) {
    const end = x + (<usize>min(1024, left) << 2);
    let a = f32x4.splat(0), b = a, equal = i32x4.splat(0);
    for (; x + 32 <= end; x += 32) {
      const p = v128.load(x), q = v128.load(x, 16), topP = f32x4.eq(p, top), topQ = f32x4.eq(q, top);
      a = f32x4.add(a, v128.andnot(expBelow89(f32x4.sub(p, top)), topP));
      b = f32x4.add(b, v128.andnot(expBelow89(f32x4.sub(q, top)), topQ));
      equal = i32x4.add(equal, i32x4.add(topP, topQ)); // -1 where equal
    }
    for (; x < end; x += 4) {
      const p = v128.load32_zero(x), ofOne = i32x4(-1, 0, 0, 0), isTop = v128.and(f32x4.eq(p, top), ofOne);
      a = f32x4.add(a, v128.andnot(v128.and(expBelow89(f32x4.sub(p, top)), ofOne), isTop));
      equal = i32x4.add(equal, isTop);
    }
    sum += <f64>hsum(f32x4.add(a, b));
    tops -= i32x4.extract_lane(equal, 0) + i32x4.extract_lane(equal, 1) + i32x4.extract_lane(equal, 2) + i32x4.extract_lane(equal, 3);
  }
  return sum + <f64>(tops - 1);
}

// @ts-ignore: decorator
@inline
function rowGradient(x: usize, dx: usize, V: i32, t: i32, stats: usize, dy: f64): void {
  const m = load<f32>(stats), S = <f64>load<f32>(stats, 4), scale = dy / (1 + S);
  const top = f32x4.splat(m), factor = f32x4.splat(<f32>scale), at = <usize>t << 2, end = (<usize>V << 2) & ~15;
  for (let p: usize = 0; p < end; p += 16) gradientCell(x + p, dx + p, top, factor, 4);
  if (V & 3) gradientCell(x + end, dx + end, top, factor, V & 3);
  if (load<f32>(x + at) == m) store<f32>(dx + at, <f32>(-S * scale)); // 1 / (1 + S) - 1, without the cancellation
  else store<f32>(dx + at, <f32>(<f64>load<f32>(dx + at) - dy));
}

// @ts-ignore: decorator
@inline
function gradientCell(x: usize, dx: usize, top: v128, factor: v128, lanes: i32): void {
  storeN(dx, f32x4.mul(expBelow89(f32x4.sub(loadN(x, lanes), top)), factor), lanes);
}
