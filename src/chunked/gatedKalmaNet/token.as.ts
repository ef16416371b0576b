/** A sequence of one token, as in decoding: its matrix as it is, every product of the iteration from the nearest cache (README, section 7). */
import { exp1, hsum, madd } from '../wasm/lib/math.as';
import { sums4 } from '../wasm/lib/product.as';
import { packRows } from '../wasm/lib/rows.as';
import { storeN } from '../wasm/lib/tail.as';
import { headAt, mixRows, Plan, rowAt } from './plan.as';

export function tokenFwd(p: Plan, t: i32, queries: usize, final: usize): void {
  const D = p.D, dense = <usize>(D * D) << 2;
  for (let h = 0; h < p.H; h++, final += dense) {
    const decay: f32 = p.g ? exp1(load<f32>(headAt(p, p.g, t, h))) : 1;
    const norm = matrixOf(p, rowAt(p, p.k, t, h), p.initial ? p.initial + <usize>h * dense : 0, decay, final);
    if (p.iterations) {
      store<f32>(headAt(p, p.norms, t, h), norm);
      iterate(p, rowAt(p, p.q, t, h), norm == 0 ? 1 : norm);
    }
    mixRows(p, t, 1, h, p.xRows, rowAt(p, queries, t, h));
  }
}

/** decay * (symmetric part of initial) + k k^T to `work`, rows padded with 0, and to `final`; returns its norm. */
function matrixOf(p: Plan, k: usize, initial: usize, decay: f32, final: usize): f32 {
  const D = p.D, row = <usize>D << 2, f = f32x4.splat(decay);
  let square: f64 = 0, to = p.work;
  packRows(k, 0, 1, D, p.kRows, 1, 1);
  if (initial) symmetricRows(p, initial);
  for (let i = 0; i < D; i++, final += row) {
    const own = v128.load_splat<f32>(p.kRows + (<usize>i << 2));
    let sum = f32x4.splat(0);
    for (let j = 0; j < p.Dp; j += 4, to += 16) {
      let x = f32x4.mul(own, v128.load(p.kRows + (<usize>j << 2)));
      if (initial) x = madd(f, v128.load(to), x);
      sum = madd(x, x, sum);
      v128.store(to, x);
      if (j < D) storeN(final + (<usize>j << 2), x, D - j);
    }
    square += <f64>hsum(sum);
  }
  memory.fill(to, 0, (<usize>(p.Dp - D) * <usize>p.Dp) << 2);
  return <f32>sqrt(square);
}

/** The symmetric part of a dense matrix to `work`. */
function symmetricRows(p: Plan, src: usize): void {
  const D = p.D;
  packRows(src, <usize>D << 2, D, D, p.work, D, 1);
  for (let i = 1; i < D; i++)
    for (let j = 0; j < i; j++) {
      const a = p.work + (<usize>(i * p.Dp + j) << 2), b = p.work + (<usize>(j * p.Dp + i) << 2);
      const mean = <f32>0.5 * (load<f32>(a) + load<f32>(b));
      store<f32>(a, mean);
      store<f32>(b, mean);
    }
}

/** The solution for q in the first row of xRows: with X = f x, X' = omega (rho X - 2 rho / f H X + 2 rho q) + (1 - omega) X_before. */
function iterate(p: Plan, q: usize, norm: f32): void {
  const bytes = <usize>p.Dp << 2, rho: f32 = 1 / (1 + 2 * p.ridge), quarter = rho * rho / 4;
  let x = p.xRows, before = x + bytes, omega: f32 = 2;
  packRows(q, 0, 1, p.D, p.rightSides, 1, 2 * rho);
  memory.copy(x, p.rightSides, bytes);
  memory.fill(before, 0, bytes);
  for (let step = 0; step < p.iterations; step++) {
    omega = 1 / (1 - quarter * omega);
    for (let i: usize = 0; i < bytes; i += 32) eightRows(p, x, before, i, rho, omega, -2 * rho / norm);
    const next = before;
    before = x;
    x = next;
  }
  const f = f32x4.splat(1 / norm);
  for (let i: usize = 0; i < bytes; i += 16) v128.store(p.xRows + i, f32x4.mul(f, v128.load(x + i)));
}

/** 8 channels of a step; `i` counts bytes. */
function eightRows(p: Plan, x: usize, before: usize, i: usize, rho: f32, omega: f32, factor: f32): void {
  const row = <usize>p.Dp << 2, a = p.work + (i >> 2) * row;
  let c0 = f32x4.splat(0), c1 = c0, c2 = c0, c3 = c0, c4 = c0, c5 = c0, c6 = c0, c7 = c0;
  for (let at: usize = 0; at < row; at += 16) {
    const y = v128.load(x + at), half = a + at + (row << 2);
    let from = a + at;
    c0 = madd(y, v128.load(from), c0);
    c4 = madd(y, v128.load(half), c4);
    from += row;
    c1 = madd(y, v128.load(from), c1);
    c5 = madd(y, v128.load(half + row), c5);
    from += row;
    c2 = madd(y, v128.load(from), c2);
    c6 = madd(y, v128.load(half + 2 * row), c6);
    c3 = madd(y, v128.load(from + row), c3);
    c7 = madd(y, v128.load(half + 3 * row), c7);
  }
  finish(p, x + i, before + i, i, sums4(c0, c1, c2, c3), rho, omega, factor);
  finish(p, x + i + 16, before + i + 16, i + 16, sums4(c4, c5, c6, c7), rho, omega, factor);
}

// @ts-ignore: decorator
@inline
function finish(p: Plan, x: usize, before: usize, i: usize, product: v128, rho: f32, omega: f32, factor: f32): void {
  const moved = madd(f32x4.splat(factor), product, madd(f32x4.splat(rho), v128.load(x), v128.load(p.rightSides + i)));
  v128.store(before, madd(f32x4.splat(omega), moved, f32x4.mul(f32x4.splat(1 - omega), v128.load(before))));
}
