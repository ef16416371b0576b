/** The Chebyshev iteration for the tokens of a chunk, in the basis where the state is tridiagonal (README, sections 3 and 7). */
import { C, SQUARE_ROW } from '../wasm/lib/chunk.as';
import { madd } from '../wasm/lib/math.as';
import { packTransposed } from '../wasm/lib/rows.as';
import { columnsToRows, fourToRows, Plan, transposeBlock, wideRow } from './plan.as';
import { tridiagonal, turn, turnBack } from './tridiagonal.as';

/** After readKeys: the state made tridiagonal, and n keys turned. */
export function turnKeys(p: Plan, state: usize, n: i32): void {
  const row = <usize>p.Dp << 2;
  tridiagonal(p, state);
  toColumns(p, p.kRows, row, n, p.Dp, p.keyColumns);
  turn(p, p.keyColumns);
  columnsToRows(p, p.keyColumns, p.keyPanels, 32, <usize>C << 5);
}

/** n rows of `width` floats to columns; missing ones are 0. */
function toColumns(p: Plan, src: usize, stride: usize, n: i32, width: i32, to: usize): void {
  packTransposed(src, stride, min(8, n), width, to);
  packTransposed(src + 8 * stride, stride, max(0, n - 8), width, to + (<usize>p.Dp << 5));
}

/**
 * Norms f_t of H_t = a_t H_{t-1} + k_t k_t^T, after turnKeys and keyProducts: f_t^2 = a_t^2 f_{t-1}^2 + 2 k_t^T (a_t H_{t-1}) k_t + |k_t|^4, a sum
 * of what is not negative. The first n of them, `stride` bytes apart, also go to `saved`.
 */
export function makeNorms(p: Plan, n: i32, saved: usize, stride: usize): void {
  let square = stateSquare(p);
  stateProducts(p);
  for (let t: usize = 0; t < <usize>C; t++) {
    const gram = p.gram + t * SQUARE_ROW, pairs = p.pairs + t * SQUARE_ROW;
    let mixed = <f64>(load<f32>(p.head + (t << 2), 64) * p.peak) * <f64>load<f32>(p.keyNorms + (t << 2));
    for (let j: usize = 0; j < t << 2; j += 4) {
      const product = <f64>load<f32>(gram + j);
      mixed += <f64>load<f32>(pairs + j) * product * product;
    }
    const own = <f64>load<f32>(gram + (t << 2)), decay = <f64>load<f32>(p.head + (t << 2));
    square = decay * decay * square + 2 * max(0, mixed) + own * own;
    const norm = <f32>sqrt(square);
    if (<i32>t < n) store<f32>(saved + t * stride, norm);
    useNorm(p, t, norm);
  }
}

/** Norms of n tokens, `stride` bytes apart, as makeNorms saved them. */
export function readNorms(p: Plan, n: i32, saved: usize, stride: usize): void {
  for (let t: usize = 0; t < <usize>C; t++) useNorm(p, t, <i32>t < n ? load<f32>(saved + t * stride) : 0);
}

// @ts-ignore: decorator
@inline
function useNorm(p: Plan, t: usize, norm: f32): void {
  store<f32>(p.norm + (t << 2), norm);
  store<f32>(p.inverse + (t << 2), norm == 0 ? 1 : 1 / norm);
}

/** The squared Frobenius norm of the state, that of T. */
function stateSquare(p: Plan): f64 {
  let square: f64 = 0;
  for (let i: usize = 0; i < <usize>p.D << 2; i += 4) {
    const d = <f64>load<f32>(p.diagonal + i), e = <f64>load<f32>(p.right + i);
    square += d * d + 2 * e * e;
  }
  return square * <f64>p.peak * <f64>p.peak;
}

/** keyNorms_t = k_t^T T k_t for turned keys, without the factor `peak`. */
function stateProducts(p: Plan): void {
  for (let half: usize = 0; half < 4; half++) {
    let at = p.keyColumns + ((half >> 1) * <usize>p.Dp << 5) + ((half & 1) << 4);
    let sum = f32x4.splat(0), above = sum;
    for (let i: usize = 0; i < <usize>p.D << 2; i += 4, at += 32) {
      const x = v128.load(at), d = v128.load_splat<f32>(p.diagonal + i), e = v128.load_splat<f32>(p.left + i);
      sum = madd(x, madd(d, x, f32x4.mul(f32x4.add(e, e), above)), sum);
      above = x;
    }
    v128.store(p.keyNorms + (half << 4), sum);
  }
}

/**
 * Rows `to` [16, Dp] become x of (H_t + lambda_t I) x_t = b_t for n rows b of `width` floats, `stride` bytes apart, with H_t of the chunk at
 * hand: after turnKeys, and makeNorms or readNorms.
 */
export function solveRows(p: Plan, b: usize, stride: usize, n: i32, width: i32, to: usize): void {
  toColumns(p, b, stride, n, width, p.columns);
  turn(p, p.columns);
  makeWeights(p);
  for (let a = 0; a << 2 < n; a++) iterate(p, a);
  turnBack(p, p.columns);
  columnsToRows(p, p.columns, to, <usize>p.Dp << 2, 32);
  for (let t: usize = 0; t < <usize>C; t++) {
    const f = v128.load_splat<f32>(p.inverse + (t << 2));
    for (const end = to + (<usize>p.Dp << 2); to < end; to += 16) v128.store(to, f32x4.mul(f, v128.load(to)));
  }
}

/**
 * What a step takes away: with X = f x, each step is X' = omega (rho X - 2 rho (H_t / f_t) X + 2 rho b) + (1 - omega) X_before, and H_t is
 * the decayed state and the sum of pairs_tj k_j k_j^T.
 */
function makeWeights(p: Plan): void {
  const factor: f32 = -2 / (1 + 2 * p.ridge);
  for (let t: usize = 0; t < <usize>C; t++) {
    const w: f32 = factor * load<f32>(p.inverse + (t << 2)), at = t * SQUARE_ROW;
    store<f32>(p.stateWeights + (t << 2), w * (load<f32>(p.head + (t << 2), 64) * p.peak));
    for (let j: usize = 0; j < SQUARE_ROW; j += 16)
      v128.store(p.weights + at + j, f32x4.mul(f32x4.splat(w), v128.load(p.pairs + at + j)));
  }
}

/** All steps for the tokens 4 a .. 4 a + 3, from turned columns to turned columns. */
function iterate(p: Plan, a: i32): void {
  const Dp = p.Dp, wide = wideRow(p), row = <usize>Dp << 2, panels = <usize>Dp >> 3, tokens = <usize>a;
  const columns = p.columns + ((tokens >> 1) * <usize>Dp << 5) + ((tokens & 1) << 4);
  const rho: f32 = 1 / (1 + 2 * p.ridge), quarter = rho * rho / 4, factors = p.stateWeights + (tokens << 4);
  startRows(p, columns, 2 * rho);
  let x = p.present, before = p.before, omega: f32 = 2;
  for (let step = 0; step < p.iterations; step++) {
    omega = 1 / (1 - quarter * omega);
    for (let b: usize = 0; b <= tokens >> 1; b++)
      scoresOf(x, wide, p.keyColumns + b * (row << 3), Dp, p.weights + tokens * (4 * SQUARE_ROW) + (b << 5), omega, p.scores + (b << 5));
    stepOfState(p, x, before, factors, rho, omega);
    for (let i: usize = 0; i < panels; i++) addKeys(before + (i << 5), wide, p.scores, p.keyPanels + i * (<usize>C << 5), (a + 1) << 2);
    const next = before;
    before = x;
    x = next;
  }
  for (let i = 0; i < Dp; i += 4) transposeBlock(x + (<usize>i << 2), wide, columns + (<usize>i << 5), 32);
}

/** Right sides 2 rho b, where the iteration starts too, with 0 before it. */
function startRows(p: Plan, columns: usize, factor: f32): void {
  const row = <usize>p.Dp << 2, f = f32x4.splat(factor);
  fourToRows(columns, p.Dp, p.rightSides, row, 32);
  for (let r: usize = 0, b = p.rightSides; r < 4; r++) {
    let x = p.present + r * wideRow(p), before = p.before + r * wideRow(p);
    for (const end = b + row; b < end; b += 16, x += 16, before += 16) {
      const y = f32x4.mul(f, v128.load(b));
      v128.store(b, y);
      v128.store(x, y);
      v128.store(before, f32x4.splat(0));
    }
  }
}

/** omega * weights * x K^T for 4 rows x and 8 keys, given as a panel of columns; 0 where the weight is 0. */
function scoresOf(x: usize, wide: usize, keys: usize, Dp: i32, weights: usize, omega: f32, scores: usize): void {
  const o = f32x4.splat(omega);
  let c00 = f32x4.splat(0), c01 = c00, c10 = c00, c11 = c00, c20 = c00, c21 = c00, c30 = c00, c31 = c00;
  let x1 = x + wide, x2 = x1 + wide, x3 = x2 + wide;
  for (const end = x + (<usize>Dp << 2); x < end; x += 4, x1 += 4, x2 += 4, x3 += 4, keys += 32) {
    const y = v128.load(keys), z = v128.load(keys, 16);
    let s = v128.load_splat<f32>(x);
    c00 = madd(s, y, c00);
    c01 = madd(s, z, c01);
    s = v128.load_splat<f32>(x1);
    c10 = madd(s, y, c10);
    c11 = madd(s, z, c11);
    s = v128.load_splat<f32>(x2);
    c20 = madd(s, y, c20);
    c21 = madd(s, z, c21);
    s = v128.load_splat<f32>(x3);
    c30 = madd(s, y, c30);
    c31 = madd(s, z, c31);
  }
  weigh(c00, o, weights, scores);
  weigh(c01, o, weights + 16, scores + 16);
  weigh(c10, o, weights + SQUARE_ROW, scores + SQUARE_ROW);
  weigh(c11, o, weights + SQUARE_ROW + 16, scores + SQUARE_ROW + 16);
  weigh(c20, o, weights + 2 * SQUARE_ROW, scores + 2 * SQUARE_ROW);
  weigh(c21, o, weights + 2 * SQUARE_ROW + 16, scores + 2 * SQUARE_ROW + 16);
  weigh(c30, o, weights + 3 * SQUARE_ROW, scores + 3 * SQUARE_ROW);
  weigh(c31, o, weights + 3 * SQUARE_ROW + 16, scores + 3 * SQUARE_ROW + 16);
}

// @ts-ignore: decorator
@inline
function weigh(x: v128, omega: v128, weight: usize, to: usize): void {
  const w = v128.load(weight);
  v128.store(to, v128.and(f32x4.mul(f32x4.mul(omega, x), w), f32x4.ne(w, f32x4.splat(0))));
}

/** The part of a step for 4 tokens that does without keys: before = omega (b + rho x + factor T x) + (1 - omega) before. */
function stepOfState(p: Plan, x: usize, before: usize, factors: usize, rho: f32, omega: f32): void {
  const row = <usize>p.Dp << 2, wide = wideRow(p), o = f32x4.splat(omega), rest = f32x4.splat(1 - omega), kept = f32x4.splat(omega * rho);
  const f0 = f32x4.splat(omega * load<f32>(factors)), f1 = f32x4.splat(omega * load<f32>(factors, 4));
  const f2 = f32x4.splat(omega * load<f32>(factors, 8)), f3 = f32x4.splat(omega * load<f32>(factors, 12));
  let b = p.rightSides, diagonal = p.diagonal;
  for (const end = b + row; b < end; b += 16, x += 16, before += 16, diagonal += 16) {
    const d = v128.load(diagonal), r = v128.load(diagonal + row), l = v128.load(diagonal + 2 * row);
    let at = x, to = before, from = b;
    stepVector(at, to, from, d, r, l, f0, o, rest, kept);
    at += wide;
    to += wide;
    from += row;
    stepVector(at, to, from, d, r, l, f1, o, rest, kept);
    at += wide;
    to += wide;
    from += row;
    stepVector(at, to, from, d, r, l, f2, o, rest, kept);
    stepVector(at + wide, to + wide, from + row, d, r, l, f3, o, rest, kept);
  }
}

// @ts-ignore: decorator
@inline
function stepVector(x: usize, before: usize, b: usize, d: v128, r: v128, l: v128, factor: v128, o: v128, rest: v128, kept: v128): void {
  const y = v128.load(x), t = madd(l, v128.load(x - 4), madd(r, v128.load(x + 4), f32x4.mul(d, y)));
  const old = madd(o, v128.load(b), f32x4.mul(rest, v128.load(before)));
  v128.store(before, madd(factor, t, madd(kept, y, old)));
}

/** c += scores K for 4 rows, 8 channels and `count` keys. */
// @ts-ignore: decorator
@inline
function addKeys(c: usize, wide: usize, scores: usize, keys: usize, count: i32): void {
  const c1 = c + wide, c2 = c1 + wide, c3 = c2 + wide;
  let c00 = v128.load(c), c01 = v128.load(c, 16), c10 = v128.load(c1), c11 = v128.load(c1, 16);
  let c20 = v128.load(c2), c21 = v128.load(c2, 16), c30 = v128.load(c3), c31 = v128.load(c3, 16);
  for (const end = scores + (<usize>count << 2); scores < end; scores += 4, keys += 32) {
    const y = v128.load(keys), z = v128.load(keys, 16);
    let s = v128.load_splat<f32>(scores);
    c00 = madd(s, y, c00);
    c01 = madd(s, z, c01);
    s = v128.load_splat<f32>(scores, 64);
    c10 = madd(s, y, c10);
    c11 = madd(s, z, c11);
    s = v128.load_splat<f32>(scores, 128);
    c20 = madd(s, y, c20);
    c21 = madd(s, z, c21);
    s = v128.load_splat<f32>(scores, 192);
    c30 = madd(s, y, c30);
    c31 = madd(s, z, c31);
  }
  v128.store(c, c00);
  v128.store(c, c01, 16);
  v128.store(c1, c10);
  v128.store(c1, c11, 16);
  v128.store(c2, c20);
  v128.store(c2, c21, 16);
  v128.store(c3, c30);
  v128.store(c3, c31, 16);
}
