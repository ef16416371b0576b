/** The state made tridiagonal by reflections, state = Q T Q^T, and vectors turned by Q (README, section 7). */
import { hsum, madd } from '../wasm/lib/math.as';
import { Plan } from './plan.as';

/**
 * Squares that sum up to less are left as they are, in a matrix whose largest entry is 1: far below rounding, and near what float32 cannot
 * hold a vector of length 1 can no longer be made from them.
 */
// @ts-ignore: decorator
@inline
const NOTHING: f32 = 1e-28;

/**
 * T / peak in `diagonal`, `right` and `left`, Q in `reflections`, from a symmetric state in panels: Householder's method, from the last row
 * up. Reflection I - u u^T of row m clears its entries before m - 1. What it does to the matrix A, A - u w^T - w u^T with y = A u and
 * w = y - (y . u) / 2 u, is done in the pass over A that makes the y of the next. Of A only blocks of 4 x 4 up to the diagonal are used.
 */
export function tridiagonal(p: Plan, state: usize): void {
  const D = p.D, row = <usize>p.Dp << 2;
  memory.fill(p.diagonal, 0, 3 * row);
  p.peak = peakOf(state, D, p.Dp);
  if (p.peak == 0) return;
  unpackScaled(state, p.Dp, 1 / p.peak, p.work);
  memory.fill(p.change, 0, row);
  let u = p.reflections + row * <usize>p.Dp;
  memory.fill(u, 0, row);
  for (let m = D - 1; m >= 0; m--) {
    const at = <usize>m << 2, a = p.work + <usize>m * row;
    reflectRow(a, u, p.change, load<f32>(u + at), load<f32>(p.change + at), m);
    store<f32>(p.diagonal + at, load<f32>(a + at));
    if (m == 0) continue;
    if (m == 1) {
      store<f32>(p.right, load<f32>(a));
    } else {
      const next = p.reflections + <usize>m * row;
      store<f32>(p.right + at - 4, reflectionOf(a, m, next, row));
      clear(p.image, p.image + (<usize>m << 2));
      for (let i = 0; i < m; i += 2) reflectPair(p.work + <usize>i * row, row, i, u, p.change, next, p.image);
      u = next;
      changeOf(p.image, u, p.change, m);
    }
    store<f32>(p.left + at, load<f32>(p.right + at - 4));
  }
}

/** The largest entry of a matrix without negative eigenvalues lies on its diagonal. What 1 / peak cannot be had of in float32 counts as 0. */
function peakOf(state: usize, D: i32, Dp: i32): f32 {
  const panel = <usize>Dp << 5;
  let peak: f32 = 0;
  for (let i: usize = 0; i < <usize>D; i++) peak = max(peak, load<f32>(state + (i >> 3) * panel + (i << 5) + ((i & 7) << 2)));
  return peak < 1e-37 ? 0 : peak;
}

function unpackScaled(src: usize, Dp: i32, factor: f32, to: usize): void {
  const f = f32x4.splat(factor), row = <usize>Dp << 2;
  for (let col: usize = 0; col < row; col += 32)
    for (let at = to + col, end = at + row * <usize>Dp; at < end; at += row, src += 32) {
      v128.store(at, f32x4.mul(f, v128.load(src)));
      v128.store(at, f32x4.mul(f, v128.load(src, 16)), 16);
    }
}

/** Whole vectors from `at` on, until `end` is reached. memory.fill is a call, which costs more than so few stores. */
// @ts-ignore: decorator
@inline
function clear(at: usize, end: usize): void {
  for (; at < end; at += 16) v128.store(at, f32x4.splat(0));
}

/** Entries 0 .. m of row a -= ui w + wi u. */
function reflectRow(a: usize, u: usize, w: usize, ui: f32, wi: f32, m: i32): void {
  const s = f32x4.splat(-ui), t = f32x4.splat(-wi);
  for (const end = a + (<usize>m << 2); a <= end; a += 16, u += 16, w += 16)
    v128.store(a, madd(s, v128.load(w), madd(t, v128.load(u), v128.load(a))));
}

/** u of the reflection that turns entries 0 .. m - 1 of row a into (0, .., 0, result); 0 where they are nearly so. */
function reflectionOf(a: usize, m: i32, u: usize, row: usize): f32 {
  const last = <usize>(m - 1) << 2, alpha = load<f32>(a + last);
  const whole = last & ~15, tail = u + whole;
  let sum = f32x4.splat(0);
  for (let at: usize = 0; at < whole; at += 16) {
    const x = v128.load(a + at);
    v128.store(u + at, x);
    sum = madd(x, x, sum);
  }
  clear(tail, u + row);
  for (let at = whole; at < last; at += 4) store<f32>(u + at, load<f32>(a + at));
  const rest = hsum(madd(v128.load(tail), v128.load(tail), sum));
  if (rest < NOTHING) {
    clear(u, u + row);
    return alpha;
  }
  const norm = sqrt<f32>(rest + alpha * alpha), far = norm + abs<f32>(alpha), f = f32x4.splat(1 / sqrt<f32>(norm * far));
  store<f32>(u + last, alpha > 0 ? far : -far);
  for (let p = u; p <= u + last; p += 16) v128.store(p, f32x4.mul(f, v128.load(p)));
  return alpha > 0 ? -norm : norm;
}

/** Rows i and i + 1 (i even) of A -= u w^T + w u^T, and their part of y = A next: to the right of the diagonal A is what it is below. */
function reflectPair(a: usize, row: usize, i: i32, u: usize, w: usize, next: usize, y: usize): void {
  const at = <usize>i << 2, block = a + (at & ~15), out = y + at;
  const s0 = f32x4.neg(v128.load_splat<f32>(u + at)), s1 = f32x4.neg(v128.load_splat<f32>(u + at, 4));
  const t0 = f32x4.neg(v128.load_splat<f32>(w + at)), t1 = f32x4.neg(v128.load_splat<f32>(w + at, 4));
  const n0 = v128.load_splat<f32>(next + at), n1 = v128.load_splat<f32>(next + at, 4);
  let y0 = f32x4.splat(0), y1 = y0;
  for (; a < block; a += 16, u += 16, w += 16, next += 16, y += 16) {
    const ub = v128.load(u), wb = v128.load(w), nb = v128.load(next);
    const a0 = madd(s0, wb, madd(t0, ub, v128.load(a))), a1 = madd(s1, wb, madd(t1, ub, v128.load(a + row)));
    v128.store(a, a0);
    v128.store(a + row, a1);
    y0 = madd(a0, nb, y0);
    y1 = madd(a1, nb, y1);
    v128.store(y, madd(n0, a0, madd(n1, a1, v128.load(y))));
  }
  const ub = v128.load(u), wb = v128.load(w), nb = v128.load(next);
  const a0 = madd(s0, wb, madd(t0, ub, v128.load(a))), a1 = madd(s1, wb, madd(t1, ub, v128.load(a + row)));
  v128.store(a, a0);
  v128.store(a + row, a1);
  store<f32>(out, load<f32>(out) + hsum(madd(a0, nb, y0)));
  store<f32>(out, load<f32>(out, 4) + hsum(madd(a1, nb, y1)), 4);
}

/** w = y - (y . u) / 2 u, m entries. */
function changeOf(y: usize, u: usize, w: usize, m: i32): void {
  const bytes = <usize>m << 2;
  let dot = f32x4.splat(0);
  for (let i: usize = 0; i < bytes; i += 16) dot = madd(v128.load(y + i), v128.load(u + i), dot);
  const half = f32x4.splat(<f32>-0.5 * hsum(dot));
  for (let i: usize = 0; i < bytes; i += 16) v128.store(w + i, madd(half, v128.load(u + i), v128.load(y + i)));
}

/** Columns z become Q^T z. */
export function turn(p: Plan, z: usize): void {
  reflect(p, z, p.D - 1, 1, -1);
}

/** Columns z become Q z. */
export function turnBack(p: Plan, z: usize): void {
  reflect(p, z, 2, p.D, 1);
}

/**
 * Reflections `first`, `first` + `by`, ... of columns z, up to `end`, which is none: there the last one is only completed. Each is applied in
 * the pass that makes the products of the next with the columns. The vectors are 0 from entry m on.
 */
function reflect(p: Plan, z: usize, first: i32, end: i32, by: i32): void {
  if (p.peak == 0) return;
  const row = <usize>p.Dp << 2, second = <usize>p.Dp << 5, none = p.reflections + row * <usize>p.Dp;
  let d0 = f32x4.splat(0), d1 = d0, d2 = d0, d3 = d0, last = none;
  for (let m = first; m * by <= end * by; m += by) {
    const u = m == end ? none : p.reflections + row * <usize>m, stop = u + (<usize>min(m + 1, p.D) << 2);
    let n0 = f32x4.splat(0), n1 = n0, n2 = n0, n3 = n0, at = z;
    for (let a = u; a < stop; a += 4, last += 4, at += 32) {
      const s = v128.load_splat<f32>(last), r = v128.load_splat<f32>(a), to = at + second;
      let x = madd(s, d0, v128.load(at));
      v128.store(at, x);
      n0 = madd(r, x, n0);
      x = madd(s, d1, v128.load(at, 16));
      v128.store(at, x, 16);
      n1 = madd(r, x, n1);
      x = madd(s, d2, v128.load(to));
      v128.store(to, x);
      n2 = madd(r, x, n2);
      x = madd(s, d3, v128.load(to, 16));
      v128.store(to, x, 16);
      n3 = madd(r, x, n3);
    }
    d0 = f32x4.neg(n0);
    d1 = f32x4.neg(n1);
    d2 = f32x4.neg(n2);
    d3 = f32x4.neg(n3);
    last = u;
  }
}
