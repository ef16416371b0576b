/**
 * Depthwise causal convolution over tokens, one sequence [T, D] per call; four channels in a vector.
 *
 * Work goes in tiles of TILE tokens; inside a tile each column of four channels slides down the tokens. A column reads a window of
 * W rows: token i sees rows i .. i + W - 1 of `rows`. Only the first W - 1 tokens of a sequence look back into the state, so they
 * run on a scratch copy (`head`: W - 1 rows of state, then up to W - 1 rows of x) and all others on x itself.
 *
 * `taps` is the weight transposed to [W, D]. A pointer of 0 means absent: no bias, a state of zeros, no gradient of the state.
 */
import { flushPart } from '../wasm/lib/blockSum.as';
import { madd, sigmoid4 } from '../wasm/lib/math.as';
import { loadN, storeN } from '../wasm/lib/tail.as';

// @ts-ignore: decorator
@inline
const TILE: i32 = 32;

/** taps [W, D] from weight [D, W]. */
export function causalConv1dTaps(weight: usize, taps: usize, D: i32, W: i32): void {
  for (let d = 0; d < D; d++)
    for (let j = 0; j < W; j++) store<f32>(cell(taps, j * D + d), load<f32>(cell(weight, d * W + j)));
}

// @ts-ignore: decorator
@inline
function cell(base: usize, index: i32): usize {
  return base + (<usize>index << 2);
}

/** y [T, D] and finalState [D, W]; head is scratch of 2 (W - 1) rows. */
export function causalConv1dFwd(
  x: usize, taps: usize, bias: usize, state: usize, y: usize, finalState: usize,
  T: i32, D: i32, W: i32, silu: i32, head: usize,
): void {
  const early = fillHead(head, x, state, T, D, W);
  forwardTiles(head, taps, bias, y, early, D, W, silu);
  forwardTiles(x, taps, bias, cell(y, early * D), T - early, D, W, silu);
  for (let d = 0; d < D; d++)
    for (let i = 0; i < W; i++)
      store<f32>(cell(finalState, d * W + i), lastInput(x, state, d, T + i, D, W));
}

/** Input number `at` of [state | x], counted from the oldest entry of the state, in channel d. */
// @ts-ignore: decorator
@inline
function lastInput(x: usize, state: usize, d: i32, at: i32, D: i32, W: i32): f32 {
  if (at >= W) return load<f32>(cell(x, (at - W) * D + d));
  return state ? load<f32>(cell(state, d * W + at)) : 0;
}

/** Fills `head` and returns the number of tokens that run on it. */
function fillHead(head: usize, x: usize, state: usize, T: i32, D: i32, W: i32): i32 {
  for (let i = 0; i < W - 1; i++)
    for (let d = 0; d < D; d++)
      store<f32>(cell(head, i * D + d), state ? load<f32>(cell(state, d * W + i + 1)) : 0);
  const early = min(T, W - 1);
  memory.copy(cell(head, (W - 1) * D), x, <usize>(early * D) << 2);
  return early;
}

function forwardTiles(rows: usize, taps: usize, bias: usize, y: usize, n: i32, D: i32, W: i32, silu: i32): void {
  const stride = <usize>D << 2, end = stride & ~15;
  for (let done = 0; done < n; done += TILE) {
    const count = min(TILE, n - done);
    for (let p: usize = 0; p < end; p += 16) forwardColumn(rows, taps, bias, y, p, count, stride, W, silu, 4);
    if (D & 3) forwardColumn(rows, taps, bias, y, end, count, stride, W, silu, D & 3);
    rows += stride * TILE;
    y += stride * TILE;
  }
}

// @ts-ignore: decorator
@inline
function forwardColumn(
  rows: usize, taps: usize, bias: usize, y: usize, p: usize, n: i32, stride: usize, W: i32, silu: i32, lanes: i32,
): void {
  const b = bias ? loadN(bias + p, lanes) : f32x4.splat(0);
  rows += p;
  taps += p;
  y += p;
  if (W == 4) {
    const w0 = loadN(taps, lanes), w1 = loadN(taps + stride, lanes);
    const w2 = loadN(taps + 2 * stride, lanes), w3 = loadN(taps + 3 * stride, lanes);
    let x0 = loadN(rows, lanes), x1 = loadN(rows + stride, lanes), x2 = loadN(rows + 2 * stride, lanes);
    rows += 3 * stride;
    for (let i = 0; i < n; i++, rows += stride, y += stride) {
      const x3 = loadN(rows, lanes);
      storeN(y, activate(madd(w3, x3, madd(w2, x2, madd(w1, x1, madd(w0, x0, b)))), silu), lanes);
      x0 = x1;
      x1 = x2;
      x2 = x3;
    }
    return;
  }
  for (let i = 0; i < n; i++, rows += stride, y += stride)
    storeN(y, activate(convolve(rows, taps, b, stride, W, lanes), silu), lanes);
}

// @ts-ignore: decorator
@inline
function convolve(rows: usize, taps: usize, bias: v128, stride: usize, W: i32, lanes: i32): v128 {
  let z = bias;
  for (let j = 0; j < W; j++, rows += stride, taps += stride) z = madd(loadN(taps, lanes), loadN(rows, lanes), z);
  return z;
}

// @ts-ignore: decorator
@inline
function activate(z: v128, silu: i32): v128 {
  return silu ? f32x4.mul(z, sigmoid4(z)) : z;
}

/** dL/dz from dL/dy: silu' = s * (1 + z * (1 - s)). */
// @ts-ignore: decorator
@inline
function activateBack(z: v128, dy: v128, silu: i32): v128 {
  if (!silu) return dy;
  const s = sigmoid4(z), one = f32x4.splat(1);
  return f32x4.mul(f32x4.mul(dy, s), madd(z, f32x4.sub(one, s), one));
}

/**
 * dx [T, D] and, with a state, dState [D, W]; adds the gradients of taps and bias to `total`, W + 1 rows of D doubles (the last
 * is the bias; zero it before the first sequence). Scratch: head and dHead of 2 (W - 1) rows, part of W + 1 rows of D zeros.
 */
export function causalConv1dBwd(
  x: usize, taps: usize, bias: usize, state: usize, dy: usize, dFinalState: usize, dx: usize, dState: usize,
  T: i32, D: i32, W: i32, silu: i32, head: usize, dHead: usize, part: usize, total: usize,
): void {
  const early = fillHead(head, x, state, T, D, W), look = (W - 1) * D;
  memory.fill(dHead, 0, <usize>look << 2);
  backwardTiles(head, taps, bias, dy, dHead, early, D, W, silu, part, total);
  memory.copy(dx, cell(dHead, look), <usize>(early * D) << 2);
  backwardTiles(x, taps, bias, cell(dy, early * D), dx, T - early, D, W, silu, part, total);
  for (let d = 0; d < D; d++) {
    if (dState) {
      store<f32>(cell(dState, d * W), 0); // the oldest entry is never read
      for (let i = 1; i < W; i++) store<f32>(cell(dState, d * W + i), load<f32>(cell(dHead, (i - 1) * D + d)));
    }
    for (let i = 0; i < W; i++) addFinal(dx, dState, load<f32>(cell(dFinalState, d * W + i)), d, T + i, D, W);
  }
}

/** The transpose of `lastInput`. */
// @ts-ignore: decorator
@inline
function addFinal(dx: usize, dState: usize, gradient: f32, d: i32, at: i32, D: i32, W: i32): void {
  const to = at >= W ? cell(dx, (at - W) * D + d) : dState ? cell(dState, d * W + at) : 0;
  if (to) store<f32>(to, load<f32>(to) + gradient);
}

/** On entry the first W - 1 rows of `dRows` hold what earlier tokens gave them; on return the last W - 1 rows await later ones. */
function backwardTiles(
  rows: usize, taps: usize, bias: usize, dy: usize, dRows: usize, n: i32, D: i32, W: i32, silu: i32, part: usize, total: usize,
): void {
  const stride = <usize>D << 2, end = stride & ~15;
  for (let done = 0; done < n; done += TILE) {
    const count = min(TILE, n - done);
    for (let p: usize = 0; p < end; p += 16)
      backwardColumn(rows, taps, bias, dy, dRows, p, count, stride, W, silu, part, 4);
    if (D & 3) backwardColumn(rows, taps, bias, dy, dRows, end, count, stride, W, silu, part, D & 3);
    flushPart(part, total, (W + 1) * D);
    rows += stride * TILE;
    dy += stride * TILE;
    dRows += stride * TILE;
  }
}

// @ts-ignore: decorator
@inline
function backwardColumn(
  rows: usize, taps: usize, bias: usize, dy: usize, dRows: usize, p: usize, n: i32, stride: usize, W: i32, silu: i32, part: usize, lanes: i32,
): void {
  const b = bias ? loadN(bias + p, lanes) : f32x4.splat(0);
  rows += p;
  taps += p;
  dy += p;
  dRows += p;
  part += p;
  if (W == 4) backwardFour(rows, taps, b, dy, dRows, n, stride, silu, part, lanes);
  else backwardAny(rows, taps, b, dy, dRows, n, stride, W, silu, part, lanes);
}

/** Four taps: window, weight gradient and the unfinished rows of dx stay in registers. */
// @ts-ignore: decorator
@inline
function backwardFour(
  rows: usize, taps: usize, bias: v128, dy: usize, dRows: usize, n: i32, stride: usize, silu: i32, part: usize, lanes: i32,
): void {
  const w0 = loadN(taps, lanes), w1 = loadN(taps + stride, lanes);
  const w2 = loadN(taps + 2 * stride, lanes), w3 = loadN(taps + 3 * stride, lanes);
  let x0 = loadN(rows, lanes), x1 = loadN(rows + stride, lanes), x2 = loadN(rows + 2 * stride, lanes);
  let g0 = loadN(dRows, lanes), g1 = loadN(dRows + stride, lanes), g2 = loadN(dRows + 2 * stride, lanes);
  let d0 = f32x4.splat(0), d1 = d0, d2 = d0, d3 = d0, db = d0;
  rows += 3 * stride;
  for (let i = 0; i < n; i++, rows += stride, dy += stride, dRows += stride) {
    const x3 = loadN(rows, lanes);
    const z = madd(w3, x3, madd(w2, x2, madd(w1, x1, madd(w0, x0, bias))));
    const dz = activateBack(z, loadN(dy, lanes), silu);
    storeN(dRows, madd(w0, dz, g0), lanes);
    g0 = madd(w1, dz, g1);
    g1 = madd(w2, dz, g2);
    g2 = f32x4.mul(w3, dz);
    d0 = madd(x0, dz, d0);
    d1 = madd(x1, dz, d1);
    d2 = madd(x2, dz, d2);
    d3 = madd(x3, dz, d3);
    db = f32x4.add(db, dz);
    x0 = x1;
    x1 = x2;
    x2 = x3;
  }
  storeN(dRows, g0, lanes);
  storeN(dRows + stride, g1, lanes);
  storeN(dRows + 2 * stride, g2, lanes);
  storeN(part, d0, lanes);
  storeN(part + stride, d1, lanes);
  storeN(part + 2 * stride, d2, lanes);
  storeN(part + 3 * stride, d3, lanes);
  storeN(part + 4 * stride, db, lanes);
}

// @ts-ignore: decorator
@inline
function backwardAny(
  rows: usize, taps: usize, bias: v128, dy: usize, dRows: usize, n: i32, stride: usize, W: i32, silu: i32, part: usize, lanes: i32,
): void {
  const look = stride * (W - 1), biasPart = part + stride * W;
  for (let i = 0; i < n; i++, rows += stride, dy += stride, dRows += stride) {
    const dz = activateBack(convolve(rows, taps, bias, stride, W, lanes), loadN(dy, lanes), silu);
    for (let at: usize = 0; at <= look; at += stride) {
      storeN(part + at, madd(loadN(rows + at, lanes), dz, loadN(part + at, lanes)), lanes);
      const earlier = at < look ? loadN(dRows + at, lanes) : f32x4.splat(0); // the newest row is met here first
      storeN(dRows + at, madd(loadN(taps + at, lanes), dz, earlier), lanes);
    }
    storeN(biasPart, f32x4.add(loadN(biasPart, lanes), dz), lanes);
  }
}

/** dWeight [D, W] and, where given, dBias [D] from the totals. */
export function causalConv1dWeightGrad(total: usize, dWeight: usize, dBias: usize, D: i32, W: i32): void {
  for (let d = 0; d < D; d++) {
    for (let j = 0; j < W; j++) store<f32>(cell(dWeight, d * W + j), <f32>load<f64>(total + (<usize>(j * D + d) << 3)));
    if (dBias) store<f32>(cell(dBias, d), <f32>load<f64>(total + (<usize>(W * D + d) << 3)));
  }
}

/** One token for each of B sequences, straight on weight [D, W] and states [B, D, W]: decoding. */
export function causalConv1dStep(
  x: usize, weight: usize, bias: usize, state: usize, y: usize, finalState: usize, B: i32, D: i32, W: i32, silu: i32,
): void {
  const stateBytes = <usize>(D * W) << 2, rowBytes = <usize>D << 2;
  for (let b = 0; b < B; b++) {
    let d = 0;
    if (W == 4 && state) for (; d + 4 <= D; d += 4) stepFour(x, weight, bias, state, y, finalState, <usize>d << 2, silu);
    for (; d < D; d++) stepOne(x, weight, bias, state, y, finalState, d, D, W, silu);
    x += rowBytes;
    y += rowBytes;
    if (state) state += stateBytes;
    finalState += stateBytes;
  }
}

/** Four channels of four taps: each state row shifts left and takes the token; the four dot products are summed by transposing. */
// @ts-ignore: decorator
@inline
function stepFour(x: usize, weight: usize, bias: usize, state: usize, y: usize, finalState: usize, p: usize, silu: i32): void {
  const token = v128.load(x + p), at = p << 2;
  const s0 = v128.load(state + at), s1 = v128.load(state + at, 16), s2 = v128.load(state + at, 32), s3 = v128.load(state + at, 48);
  const n0 = i32x4.shuffle(s0, token, 1, 2, 3, 4), n1 = i32x4.shuffle(s1, token, 1, 2, 3, 5);
  const n2 = i32x4.shuffle(s2, token, 1, 2, 3, 6), n3 = i32x4.shuffle(s3, token, 1, 2, 3, 7);
  v128.store(finalState + at, n0);
  v128.store(finalState + at, n1, 16);
  v128.store(finalState + at, n2, 32);
  v128.store(finalState + at, n3, 48);
  const p0 = f32x4.mul(n0, v128.load(weight + at)), p1 = f32x4.mul(n1, v128.load(weight + at, 16));
  const p2 = f32x4.mul(n2, v128.load(weight + at, 32)), p3 = f32x4.mul(n3, v128.load(weight + at, 48));
  const a = f32x4.add(i32x4.shuffle(p0, p1, 0, 4, 1, 5), i32x4.shuffle(p0, p1, 2, 6, 3, 7));
  const b = f32x4.add(i32x4.shuffle(p2, p3, 0, 4, 1, 5), i32x4.shuffle(p2, p3, 2, 6, 3, 7));
  const z = f32x4.add(i32x4.shuffle(a, b, 0, 1, 4, 5), i32x4.shuffle(a, b, 2, 3, 6, 7));
  v128.store(y + p, activate(bias ? f32x4.add(z, v128.load(bias + p)) : z, silu));
}

// @ts-ignore: decorator
@inline
function stepOne(
  x: usize, weight: usize, bias: usize, state: usize, y: usize, finalState: usize, d: i32, D: i32, W: i32, silu: i32,
): void {
  let z: f32 = bias ? load<f32>(cell(bias, d)) : 0;
  for (let i = 0; i < W; i++) {
    const input = lastInput(x, state, d, i + 1, D, W);
    store<f32>(cell(finalState, d * W + i), input);
    z += input * load<f32>(cell(weight, d * W + i));
  }
  store<f32>(cell(y, d), f32x4.extract_lane(activate(f32x4.splat(z), silu), 0));
}
