/** Gradients of the solve, from the last chunk to the first (README, sections 5 and 7). */
import { C, clearEach, decayPairs, fetch, headGates, innerSegments, PANEL, SEGMENT, SQUARE, SQUARE_ROW, scaleRows, stateBytes } from '../wasm/lib/chunk.as';
import { hsum, madd } from '../wasm/lib/math.as';
import { PANEL_ROW, rowsTimesRows, tileProduct } from '../wasm/lib/product.as';
import { packPanel, packRows, pad8, unpackMatrix, unpackPanel } from '../wasm/lib/rows.as';
import { loadN, storeN } from '../wasm/lib/tail.as';
import {
  advance, denseStates, headAt, headStride, keyProducts, packSymmetric, Plan, planOf, readKeys, restAt, rowAt, rowStride, startMatrix,
  symmetricUpdate,
} from './plan.as';
import { readNorms, solveRows, turnKeys } from './solve.as';

// "dState" is the gradient on the state, symmetric (N in the README). c is the solution for the gradient on x. Everything that the local
// gradients on the matrices give to keys and gates passes through products of x, c and k with each other, decayed.

/** Scratch of the backward pass after the part shared with the forward pass. */
// @ts-ignore: decorator
@unmanaged
class Held {
  dQueries: usize;
  dq: usize;
  dk: usize;
  dg: usize;
  dAlpha: usize;
  lambdaGradient: bool;
  // [16, 16]: x k^T decayed, strictly below the diagonal; k x^T and k c^T decayed and negated, strictly above it; products of keys, weighed
  // by `ridgeWeights`; a spare one.
  xKeys: usize;
  keyXs: usize;
  keyCs: usize;
  keyKeys: usize;
  spare: usize;
  // [16]: x . c; -2 ridge (x . c) / f (-w in the README); -b; x . k and c . k of the same token.
  products: usize;
  ridgeWeights: usize;
  keyWeights: usize;
  xOwn: usize;
  cOwn: usize;
  /** [17, 4]: sums for the gates. */
  sums: usize;
  // [16, Dp]: gradient on x; then left sides of the update of dState, 48 rows: c decayed from the chunk's start, x, k times keyWeights.
  dxRows: usize;
  cDecayed: usize;
  xLeft: usize;
  keysWeighed: usize;
  cRows: usize;
  /** x decayed from the chunk's start. */
  xDecayed: usize;
  /** Gradient on the state, one for every head. */
  dStates: usize;
  /** States before the chunks of a segment and after the last. */
  states: usize;
}

// @ts-ignore: decorator
@inline
const HELD_BYTES: usize = 128;

/** Bytes of scratch of gatedKalmaNetBwd, without the offsets. T is the longest sequence. */
export function gatedKalmaNetBwdScratch(T: i32, H: i32, D: i32): usize {
  const Dp = pad8(D), chunks = (min(T, SEGMENT) + C - 1) / C;
  return restAt(0, Dp) + HELD_BYTES + 5 * SQUARE + 320 + 272 + 6 * (<usize>Dp << 6) + <usize>(H + chunks + 1) * stateBytes(D, D);
}

function heldOf(p: Plan): Held {
  const b = changetype<Held>(p.rest), rows = <usize>p.Dp << 6;
  b.xKeys = p.rest + HELD_BYTES;
  b.keyXs = b.xKeys + SQUARE;
  b.keyCs = b.keyXs + SQUARE;
  b.keyKeys = b.keyCs + SQUARE;
  b.spare = b.keyKeys + SQUARE;
  b.products = b.spare + SQUARE;
  b.ridgeWeights = b.products + 64;
  b.keyWeights = b.ridgeWeights + 64;
  b.xOwn = b.keyWeights + 64;
  b.cOwn = b.xOwn + 64;
  b.sums = b.cOwn + 64;
  b.dxRows = b.sums + 272;
  b.cDecayed = b.dxRows + rows;
  b.xLeft = b.cDecayed + rows;
  b.keysWeighed = b.xLeft + rows;
  b.cRows = b.keysWeighed + rows;
  b.xDecayed = b.cRows + rows;
  b.dStates = b.xDecayed + rows;
  b.states = b.dStates + <usize>p.H * stateBytes(p.D, p.D);
  return b;
}

/**
 * Gradients of sum(queries * dQueries) + sum(final * dFinal); tensors as in gatedKalmaNetFwd, with what that wrote. dg (with g) and dInitial
 * may be 0. T is the longest sequence. lambdaGradient: whether keys and gates get one through the norms.
 */
export function gatedKalmaNetBwd(
  q: usize, k: usize, g: usize, alpha: usize, initial: usize, x: usize, norms: usize, starts: usize, dQueries: usize, dFinal: usize,
  dq: usize, dk: usize, dg: usize, dAlpha: usize, dInitial: usize, T: i32,
  offsets: usize, N: i32, H: i32, D: i32, iterations: i32, ridge: f32, lambdaGradient: bool, s: usize,
): void {
  const p = planOf(s, q, k, g, alpha, initial, x, norms, starts, H, D, iterations, ridge), b = heldOf(p);
  b.dQueries = dQueries;
  b.dq = dq;
  b.dk = dk;
  b.dg = dg;
  b.dAlpha = dAlpha;
  b.lambdaGradient = lambdaGradient;
  for (let n = 0; n < N; n++, offsets += 4, dFinal += denseStates(p)) {
    const t = load<i32>(offsets), length = load<i32>(offsets, 4) - t;
    sequenceBwd(p, b, t, length, dFinal, dInitial);
    p.starts += <usize>(innerSegments(length) * H) * stateBytes(D, D);
    if (initial) p.initial += denseStates(p);
    if (dInitial) dInitial += denseStates(p);
  }
}

function sequenceBwd(p: Plan, b: Held, first: i32, T: i32, dFinal: usize, dInitial: usize): void {
  const D = p.D, heads = <usize>p.H, dense = <usize>(D * D) << 2, size = stateBytes(D, D);
  for (let h: usize = 0; h < heads; h++) packSymmetric(dFinal + h * dense, D, b.dStates + h * size);
  for (let segment = innerSegments(T); segment >= 0; segment--) {
    const t = segment * SEGMENT;
    for (let h: usize = 0; h < heads; h++) {
      startMatrix(p, segment, h, b.states);
      segmentBwd(p, b, first + t, min(SEGMENT, T - t), <i32>h);
    }
  }
  if (dInitial) for (let h: usize = 0; h < heads; h++) unpackMatrix(b.dStates + h * size, D, D, dInitial + h * dense);
}

/** T tokens of one head: the states before its chunks, then the chunks from the last to the first. */
function segmentBwd(p: Plan, b: Held, first: i32, T: i32, h: i32): void {
  const size = stateBytes(p.D, p.D), chunks = (T + C - 1) / C;
  for (let c = 0; c < chunks; c++) {
    const before = b.states + <usize>c * size;
    readKeys(p, first + c * C, min(C, T - c * C), h);
    advance(p, before, before + size);
  }
  for (let c = chunks - 1; c >= 0; c--) chunkBwd(p, b, first + c * C, min(C, T - c * C), h, b.states + <usize>c * size);
}

function chunkBwd(p: Plan, b: Held, t: i32, n: i32, h: i32, state: usize): void {
  const stride = rowStride(p), dState = b.dStates + <usize>h * stateBytes(p.D, p.D);
  fetch(rowAt(p, p.q, t, h), stride, n, p.D, p.panel);
  fetch(rowAt(p, p.x, t, h), stride, n, p.D, p.panel);
  fetch(rowAt(p, b.dQueries, t, h), stride, n, p.D, p.panel);
  readKeys(p, t, n, h);
  packRows(rowAt(p, p.x, t, h), stride, n, p.D, p.xRows, C, 1);
  mixBwd(p, b, t, n, h);
  if (p.iterations) {
    turnKeys(p, state, n);
    readNorms(p, n, headAt(p, p.norms, t, h), headStride(p));
    solveRows(p, b.dxRows, <usize>p.Dp << 2, n, p.Dp, b.cRows);
    keyProducts(p);
  } else {
    memory.copy(b.cRows, b.dxRows, <usize>p.Dp << 6);
  }
  queriesBwd(p, b, t, n, h);
  if (p.iterations) prepare(p, b);
  keysBwd(p, b, t, n, h, state, dState);
  stateBwd(p, b, state, dState);
}

/** dAlpha = (x - q) . dQueries, rows of the gradient on x, and in dq what does not come through x. */
function mixBwd(p: Plan, b: Held, t: i32, n: i32, h: i32): void {
  const D = p.D, stride = rowStride(p);
  let q = rowAt(p, p.q, t, h), d = rowAt(p, b.dQueries, t, h), dq = rowAt(p, b.dq, t, h), x = p.xRows, dx = b.dxRows;
  let alpha = headAt(p, p.alpha, t, h), dAlpha = headAt(p, b.dAlpha, t, h);
  memory.fill(dx, 0, <usize>p.Dp << 6);
  for (let r = 0; r < n; r++, q += stride, d += stride, dq += stride, alpha += headStride(p), dAlpha += headStride(p)) {
    const f = v128.load_splat<f32>(alpha);
    let sum = f32x4.splat(0);
    for (let i = 0; i < D; i += 4) {
      const at = <usize>i << 2, lanes = D - i, y = loadN(d + at, lanes), z = f32x4.mul(f, y);
      sum = madd(y, f32x4.sub(v128.load(x + at), loadN(q + at, lanes)), sum);
      v128.store(dx + at, z);
      storeN(dq + at, f32x4.sub(y, z), lanes);
    }
    store<f32>(dAlpha, hsum(sum));
    x += <usize>p.Dp << 2;
    dx += <usize>p.Dp << 2;
  }
}

/** dq += c. */
function queriesBwd(p: Plan, b: Held, t: i32, n: i32, h: i32): void {
  const D = p.D, stride = rowStride(p);
  let dq = rowAt(p, b.dq, t, h), c = b.cRows;
  for (let r = 0; r < n; r++, dq += stride, c += <usize>p.Dp << 2)
    for (let i = 0; i < D; i += 4) {
      const at = <usize>i << 2, lanes = D - i;
      storeN(dq + at, f32x4.add(loadN(dq + at, lanes), v128.load(c + at)), lanes);
    }
}

/** All [16, 16] blocks and weights of tokens, and x and c decayed from the chunk's start. */
function prepare(p: Plan, b: Held): void {
  const row = <usize>p.Dp << 2, rows = <usize>p.Dp << 6;
  scaleRows(p.xRows, p.head + 64, b.xDecayed, row);
  scaleRows(b.cRows, p.head + 64, b.cDecayed, row);
  memory.copy(b.xLeft, p.xRows, rows);
  products(p, p.xRows, p.kRows, b.xKeys, p.pairs);
  products(p, p.kRows, p.xRows, b.keyXs, p.pairs + SQUARE);
  products(p, p.kRows, b.cRows, b.keyCs, p.pairs + SQUARE);
  takeDiagonal(b.keyXs, b.xOwn);
  takeDiagonal(b.keyCs, b.cOwn);
  clearEach(b.xKeys, SQUARE_ROW + 4, C);
  negate(b.keyXs);
  negate(b.keyCs);
  for (let r: usize = 0; r < <usize>C; r++) {
    const product = dot(p.xRows + r * row, b.cRows + r * row, row);
    store<f32>(b.products + (r << 2), product);
    store<f32>(b.ridgeWeights + (r << 2), b.lambdaGradient ? -2 * p.ridge * product * load<f32>(p.inverse + (r << 2)) : 0);
  }
  ridgeWeights(p, b);
  scaleRows(p.kRows, b.keyWeights, b.keysWeighed, row);
}

/** to = (rows of a) (rows of b)^T * decays. */
function products(p: Plan, a: usize, b: usize, to: usize, decays: usize): void {
  const row = <usize>p.Dp << 2;
  for (let i: usize = 0; i < 4; i++) rowsTimesRows(a + i * (row << 2), row, b, row, p.Dp, to + i * (4 * SQUARE_ROW), SQUARE_ROW, C);
  decayPairs(to, decays, C, C);
}

function takeDiagonal(square: usize, to: usize): void {
  for (let i: usize = 0; i < <usize>C; i++) store<f32>(to + (i << 2), load<f32>(square + i * (SQUARE_ROW + 4)));
  clearEach(square, SQUARE_ROW + 4, C);
}

function negate(square: usize): void {
  for (const end = square + SQUARE; square < end; square += 16) v128.store(square, f32x4.neg(v128.load(square)));
}

// @ts-ignore: decorator
@inline
function dot(a: usize, b: usize, bytes: usize): f32 {
  let sum = f32x4.splat(0);
  for (const end = a + bytes; a < end; a += 16, b += 16) sum = madd(v128.load(a), v128.load(b), sum);
  return hsum(sum);
}

/**
 * keyWeights = E^T (w * decay from the chunk's start), and keyKeys = (k k^T) * (E^T diag(w) E), with E the decays of pairs and w the
 * ridgeWeights.
 */
function ridgeWeights(p: Plan, b: Held): void {
  const weighed = b.spare, panels = p.panel, transposed = p.pairs + SQUARE;
  for (let i: usize = 0; i < <usize>C; i++) {
    let sum = f32x4.splat(0);
    for (let t: usize = 0; t < SQUARE_ROW; t += 16) {
      const x = f32x4.mul(v128.load(transposed + i * SQUARE_ROW + t), v128.load(b.ridgeWeights + t));
      v128.store(weighed + i * SQUARE_ROW + t, x);
      sum = madd(x, v128.load(p.head + t, 64), sum);
    }
    store<f32>(b.keyWeights + (i << 2), hsum(sum));
  }
  for (let col = 0; col < C; col += 8) {
    packPanel(p.pairs, SQUARE_ROW, C, C, col, panels, C);
    for (let i: usize = 0; i < <usize>C; i += 4)
      tileProduct(weighed + i * SQUARE_ROW, SQUARE_ROW, panels, C, 0, 0, 0, 0, b.keyKeys + i * SQUARE_ROW + (<usize>col << 2), SQUARE_ROW, false);
  }
  for (let i: usize = 0; i < <usize>C; i++)
    for (let j: usize = 0; j < <usize>C; j++) {
      const at = b.keyKeys + i * SQUARE_ROW + (j << 2), product = p.gram + (i > j ? i * SQUARE_ROW + (j << 2) : j * SQUARE_ROW + (i << 2));
      store<f32>(at, load<f32>(at) * load<f32>(product));
    }
}

/**
 * dk = 2 keyWrites dState + keyWeights * (k H) + keyXs c + keyCs x + keyKeys k and the gradient on g, 8 channels at a time. In the sums for
 * g the terms of a token's own key with its own gradient are left out: they cancel.
 */
function keysBwd(p: Plan, b: Held, t: i32, n: i32, h: i32, state: usize, dState: usize): void {
  const D = p.D, Dp = p.Dp, row = <usize>Dp << 2, panel = <usize>Dp << 5, tiles = <usize>((n + 3) >> 2), after = state + stateBytes(D, D);
  const keys = p.panel, xs = keys + PANEL, cs = xs + PANEL, y = b.spare, images = y + PANEL, dk = rowAt(p, b.dk, t, h);
  const two: f32 = 2;
  scaleBlock(p.keyWrites, two, <usize>Dp << 6);
  memory.fill(b.sums, 0, 272);
  for (let col = 0; col < D; col += 8) {
    const at = <usize>col << 2, from = <usize>(col >> 3) * panel;
    packPanel(p.kRows, row, C, Dp, col, keys, C);
    packPanel(p.xRows, row, C, Dp, col, xs, C);
    packPanel(b.cRows, row, C, Dp, col, cs, C);
    for (let a: usize = 0; a < tiles; a++) {
      const rows = a * (row << 2), square = a * (4 * SQUARE_ROW), to = y + a * 128;
      if (!p.iterations) {
        tileProduct(p.keyWrites + rows, row, dState + from, Dp, 0, 0, 0, 0, to, PANEL_ROW, false);
        continue;
      }
      tileProduct(p.keyWrites + rows, row, dState + from, Dp, b.keysWeighed + rows, row, state + from, Dp, to, PANEL_ROW, false);
      tileProduct(b.keyXs + square, SQUARE_ROW, cs, C, b.keyCs + square, SQUARE_ROW, xs, C, to, PANEL_ROW, true);
      tileProduct(b.keyKeys + square, SQUARE_ROW, keys, C, 0, 0, 0, 0, to, PANEL_ROW, true);
      if (p.g) tileProduct(b.xDecayed + rows, row, state + from, Dp, b.xKeys + square, SQUARE_ROW, keys, C, images + a * 128, PANEL_ROW, false);
    }
    if (p.g) addGates(p, b, y, keys, images, cs, after + from, dState + from, n);
    if (p.iterations) addOwn(b, y, xs, cs, n);
    unpackPanel(y, PANEL_ROW, dk, rowStride(p), n, D, col);
  }
  if (!p.g) return;
  if (p.iterations && b.lambdaGradient) addNorms(p, b);
  headGates(b.sums, p.head, headAt(p, b.dg, t, h), headStride(p), n);
}

function scaleBlock(x: usize, factor: f32, bytes: usize): void {
  const f = f32x4.splat(factor);
  for (const end = x + bytes; x < end; x += 16) v128.store(x, f32x4.mul(f, v128.load(x)));
}

/** sums -= k * dk / 2 + c * (H_t x) for n tokens, and the last one += H * dState after the chunk; 8 channels. */
function addGates(p: Plan, b: Held, dk: usize, keys: usize, images: usize, cs: usize, after: usize, dState: usize, n: i32): void {
  const half = f32x4.splat(-0.5), solved = p.iterations != 0;
  let sums = b.sums;
  for (const end = dk + (<usize>n << 5); dk < end; dk += 32, keys += 32, images += 32, cs += 32, sums += 16) {
    let sum = madd(v128.load(keys), v128.load(dk), f32x4.mul(v128.load(keys, 16), v128.load(dk, 16)));
    sum = madd(half, sum, v128.load(sums));
    if (solved) {
      const image = madd(v128.load(images), v128.load(cs), f32x4.mul(v128.load(images, 16), v128.load(cs, 16)));
      sum = f32x4.sub(sum, image);
    }
    v128.store(sums, sum);
  }
  let s0 = v128.load(b.sums, 256), s1 = f32x4.splat(0);
  for (const end = after + (<usize>p.Dp << 5); after < end; after += 32, dState += 32) {
    s0 = madd(v128.load(after), v128.load(dState), s0);
    s1 = madd(v128.load(after, 16), v128.load(dState, 16), s1);
  }
  v128.store(b.sums, f32x4.add(s0, s1), 256);
}

/** dk -= (k . x) c + (k . c) x of the same token; 8 channels. */
function addOwn(b: Held, dk: usize, xs: usize, cs: usize, n: i32): void {
  for (let at: usize = 0; at < <usize>n << 2; at += 4, dk += 32, xs += 32, cs += 32) {
    const kx = f32x4.neg(v128.load_splat<f32>(b.xOwn + at)), kc = f32x4.neg(v128.load_splat<f32>(b.cOwn + at));
    v128.store(dk, madd(kx, v128.load(cs), madd(kc, v128.load(xs), v128.load(dk))));
    v128.store(dk, madd(kx, v128.load(cs, 16), madd(kc, v128.load(xs, 16), v128.load(dk, 16))), 16);
  }
}

/** sums -= ridge f (x . c). */
function addNorms(p: Plan, b: Held): void {
  for (let r: usize = 0; r < <usize>C; r++) {
    const at = b.sums + (r << 4);
    store<f32>(at, load<f32>(at) - p.ridge * load<f32>(p.norm + (r << 2)) * load<f32>(b.products + (r << 2)));
  }
}

/** dState = chunkDecay dState - (c^T x + x^T c) / 2 + (sum of decay^2 ridgeWeights) / 2 H + k^T (keyWeights * k) / 2, rows decayed to the start. */
function stateBwd(p: Plan, b: Held, state: usize, dState: usize): void {
  const Dp = p.Dp, row = <usize>Dp << 2, xs = p.panel, cs = xs + PANEL, keys = cs + PANEL;
  let weight: f32 = 0;
  if (p.iterations)
    for (let r: usize = 0; r < 64; r += 4) weight += load<f32>(p.head + r, 64) * load<f32>(p.head + r, 64) * load<f32>(b.ridgeWeights + r);
  mixStates(load<f32>(p.chunkDecay), dState, <f32>0.5 * weight, state, stateBytes(p.D, p.D));
  if (!p.iterations) return;
  for (let col = 0; col < Dp; col += 8) {
    packPanel(p.xRows, row, C, Dp, col, xs, C);
    packPanel(b.cDecayed, row, C, Dp, col, cs, C);
    packPanel(p.kRows, row, C, Dp, col, keys, C);
    scaleBlock(xs, -0.5, 2 * PANEL);
    scaleBlock(keys, 0.5, PANEL);
    symmetricUpdate(p, b.cDecayed, xs, 3 * C, col, dState, dState, 0);
  }
}

/** to = decay to + weight from. */
function mixStates(decay: f32, to: usize, weight: f32, from: usize, bytes: usize): void {
  const d = f32x4.splat(decay), w = f32x4.splat(weight);
  for (const end = to + bytes; to < end; to += 16, from += 16) v128.store(to, madd(w, v128.load(from), f32x4.mul(d, v128.load(to))));
}
