/**
 * The kernel of a diagonal state space, K_l = factor Re sum_n w_n exp(l zeta_n), and its gradient (README.md here), channel by channel. With l = i J + j it is a
 * product of small matrices: anchors w_n exp(i J zeta_n) times powers exp(j zeta_n), j < J. Powers are stepped in float64, where L multiplications cost no digit
 * that float32 has, and rounded to float32 for the product.
 */
import { timesIm, timesRe } from '../wasm/lib/complex2.as';
import { low } from '../wasm/lib/double.as';
import { cos2, cosPart2, exp2, madd2, quarters2, remainder2, sin2, sinPart2 } from '../wasm/lib/exponential.as';
import { tileOf, tileRows } from '../wasm/lib/product.as';
import { copyRow } from '../wasm/lib/tail.as';

/** Rows of J numbers that L takes, as a multiple of 4. */
// @ts-ignore: decorator
@inline
function paddedRows(L: i32, J: i32): i32 { return ((L + J - 1) / J + 3) & ~3; }

/**
 * kernel [H, L] from zeta, w [H, M, 2]; J a multiple of 8. Scratch: bases of 4 M doubles, then floats: powers of 2 M J, anchors of 2 M rows, result of
 * J rows, where rows is ceil(L / J) as a multiple of 4.
 */
export function vandermondeFwd(
  zeta: usize, w: usize, kernel: usize, H: i32, M: i32, L: i32, J: i32, factor: f64, bases: usize, powers: usize, anchors: usize, result: usize,
): void {
  const rows = paddedRows(L, J), mode = <usize>M << 3, panel = mode << 3, pitch = <usize>J << 2;
  for (let h = 0; h < H; h++, zeta += mode, w += mode, kernel += <usize>L << 2) {
    exponentials(zeta, bases, M);
    powerPanels(bases, powers, M, J);
    anchorRows(w, bases, anchors, M, rows, factor);
    for (let j: usize = 0, b = powers; j < pitch; j += 32, b += panel)
      for (let i = 0; i < rows; ) {
        const n = tileRows(rows - i);
        tileOf(n, anchors + <usize>i * mode, mode, b, 2 * M, 0, 0, 0, 0, 0, 0, result + <usize>i * pitch + j, pitch);
        i += n;
      }
    copyRow(result, kernel, L);
  }
}

/** exp(zeta) of M modes, as doubles [re, im]. */
function exponentials(zeta: usize, bases: usize, M: i32): void {
  for (let m = 0; m < M; m++, zeta += 8, bases += 16) {
    const z = low(zeta, 0), y = v128.shuffle<f64>(z, z, 1, 1), q = quarters2(y), r = remainder2(y, q), s = sinPart2(r), c = cosPart2(r);
    v128.store(bases, f64x2.mul(exp2(v128.shuffle<f64>(z, z, 0, 0)), v128.shuffle<f64>(cos2(s, c, q), sin2(s, c, q), 0, 2)));
  }
}

/**
 * powers: J / 8 panels [2 M, 8], rows 2 n and 2 n + 1 hold Re and Im of exp(j zeta_n), j along the row. Leaves exp(J zeta_n) in `bases`.
 * Four pairs of neighbours j go on together by exp(8 zeta).
 */
function powerPanels(bases: usize, powers: usize, M: i32, J: i32): void {
  const panel = <usize>M << 6, end = powers + panel * <usize>(J >> 3);
  for (let m = 0; m < M; m++, bases += 16, powers += 64) {
    const e1 = v128.load(bases), one = f64x2.replace_lane(f64x2.splat(0), 0, 1), e2 = times(e1, e1), e4 = times(e2, e2), e8 = times(e4, e4);
    let r0 = v128.shuffle<f64>(one, e1, 0, 2), i0 = v128.shuffle<f64>(one, e1, 1, 3);
    const s2r = v128.shuffle<f64>(e2, e2, 0, 0), s2i = v128.shuffle<f64>(e2, e2, 1, 1), s4r = v128.shuffle<f64>(e4, e4, 0, 0), s4i = v128.shuffle<f64>(e4, e4, 1, 1);
    let r1 = timesRe(r0, i0, s2r, s2i), i1 = timesIm(r0, i0, s2r, s2i);
    let r2 = timesRe(r0, i0, s4r, s4i), i2 = timesIm(r0, i0, s4r, s4i);
    let r3 = timesRe(r1, i1, s4r, s4i), i3 = timesIm(r1, i1, s4r, s4i);
    const s8r = v128.shuffle<f64>(e8, e8, 0, 0), s8i = v128.shuffle<f64>(e8, e8, 1, 1);
    for (let p = powers; p < end; p += panel) {
      v128.store(p, rounded(r0, r1));
      v128.store(p, rounded(r2, r3), 16);
      v128.store(p, rounded(i0, i1), 32);
      v128.store(p, rounded(i2, i3), 48);
      let t = timesRe(r0, i0, s8r, s8i);
      i0 = timesIm(r0, i0, s8r, s8i);
      r0 = t;
      t = timesRe(r1, i1, s8r, s8i);
      i1 = timesIm(r1, i1, s8r, s8i);
      r1 = t;
      t = timesRe(r2, i2, s8r, s8i);
      i2 = timesIm(r2, i2, s8r, s8i);
      r2 = t;
      t = timesRe(r3, i3, s8r, s8i);
      i3 = timesIm(r3, i3, s8r, s8i);
      r3 = t;
    }
    v128.store(bases, v128.shuffle<f64>(r0, i0, 0, 2));
  }
}

/** Row i: factor Re and -factor Im of w_n exp(i J zeta_n) for every n; `bases` holds exp(J zeta_n), and behind them is room for as many. */
function anchorRows(w: usize, bases: usize, anchors: usize, M: i32, rows: i32, factor: f64): void {
  const now = bases + (<usize>M << 4), end = <usize>M << 4, signed = f64x2.replace_lane(f64x2.splat(factor), 1, -factor);
  for (let m: usize = 0; m < end; m += 16) v128.store(now + m, low(w + (m >> 1), 0));
  for (let i = 0; i < rows; i++)
    for (let m: usize = 0; m < end; m += 16, anchors += 8) {
      const x = v128.load(now + m);
      v128.store64_lane(anchors, rounded(f64x2.mul(signed, x), x), 0);
      v128.store(now + m, times(x, v128.load(bases + m)));
    }
}

/**
 * gZeta and gW [H, M, 2] from gKernel [H, L]. Scratch: bases of 8 M doubles, then floats with M4 = M as a multiple of 4: powers of 4 M4 J, upstream of J rows,
 * result of 4 M4 rows.
 */
export function vandermondeBwd(
  zeta: usize, w: usize, gKernel: usize, gZeta: usize, gW: usize, H: i32, M: i32, L: i32, J: i32, factor: f64,
  bases: usize, powers: usize, upstream: usize, result: usize,
): void {
  const rows = paddedRows(L, J), mode = <usize>M << 3, pitch = <usize>J << 2, row = <usize>((M + 3) & ~3) << 4, panel = <usize>J << 5;
  memory.fill(powers, 0, row * <usize>J); // columns of missing modes
  for (let h = 0; h < H; h++, zeta += mode, w += mode, gZeta += mode, gW += mode, gKernel += <usize>L << 2) {
    exponentials(zeta, bases, M);
    powerColumns(bases, powers, M, J);
    copyRow(gKernel, upstream, L);
    memory.fill(upstream + (<usize>L << 2), 0, (<usize>(rows * J) - <usize>L) << 2);
    for (let c: usize = 0, b = powers; c < row; c += 32, b += panel)
      for (let i = 0; i < rows; ) {
        const n = tileRows(rows - i);
        tileOf(n, upstream + <usize>i * pitch, pitch, b, J, 0, 0, 0, 0, 0, 0, result + <usize>i * row + c, row);
        i += n;
      }
    for (let m = 0; m < M; m++)
      modeGradients(bases + (<usize>m << 4), w + (<usize>m << 3), result + (<usize>m << 3), rows, row, J, factor, gZeta + (<usize>m << 3), gW + (<usize>m << 3));
  }
}

/**
 * powers: panels [J, 8] of four modes each, row j holds exp(j zeta_n) as [re, im]; behind them as many with j exp(j zeta_n). `bases` holds exp(zeta_n); leaves
 * exp(J zeta_n) there, by way of as many doubles behind it.
 */
function powerColumns(bases: usize, powers: usize, M: i32, J: i32): void {
  const now = bases + (<usize>M << 4), panel = <usize>J << 5, weighted = panel * <usize>((M + 3) >> 2), one = f64x2.replace_lane(f64x2.splat(0), 0, 1);
  for (let m = 0; m < M; m++) v128.store(now + (<usize>m << 4), one);
  for (let j = 0; j < J; j++, powers += 32) {
    const weight = f64x2.splat(<f64>j);
    for (let m = 0; m < M; m++) {
      const x = v128.load(now + (<usize>m << 4)), p = powers + panel * <usize>(m >> 2) + (<usize>(m & 3) << 3);
      const both = rounded(x, f64x2.mul(weight, x));
      v128.store64_lane(p, both, 0);
      v128.store64_lane(p + weighted, both, 1);
      v128.store(now + (<usize>m << 4), times(x, v128.load(bases + (<usize>m << 4))));
    }
  }
  memory.copy(bases, now, <usize>M << 4);
}

/**
 * With r_i = sum_j g_{iJ+j} exp(j zeta), s_i the same weighted by j, and e_i = exp(i J zeta): gW = factor conj(sum_i e_i r_i),
 * gZeta = factor conj(w sum_i e_i (i J r_i + s_i)). s lies in the second half of each row of the result.
 */
function modeGradients(base: usize, w: usize, result: usize, rows: i32, row: usize, J: i32, factor: f64, gZeta: usize, gW: usize): void {
  const step = v128.load(base), signed = f64x2.replace_lane(f64x2.splat(factor), 1, -factor);
  let e = f64x2.replace_lane(f64x2.splat(0), 0, 1), p = f64x2.splat(0), q = p;
  for (let i = 0; i < rows; i++, result += row) {
    const r = low(result, 0), s = low(result + (row >> 1), 0);
    p = f64x2.add(p, times(e, r));
    q = f64x2.add(q, times(e, madd2(f64x2.splat(<f64>(i * J)), r, s)));
    e = times(e, step);
  }
  v128.store64_lane(gW, f32x4.demote_f64x2_zero(f64x2.mul(signed, p)), 0);
  v128.store64_lane(gZeta, f32x4.demote_f64x2_zero(f64x2.mul(signed, times(low(w, 0), q))), 0);
}

/** Complex product of [re, im] and [re, im]. */
// @ts-ignore: decorator
@inline
function times(a: v128, b: v128): v128 {
  const crossed = f64x2.mul(v128.shuffle<f64>(a, a, 1, 0), v128.shuffle<f64>(b, b, 1, 1));
  return madd2(a, v128.shuffle<f64>(b, b, 0, 0), v128.xor(crossed, i64x2.replace_lane(i64x2.splat(0), 0, i64.MIN_VALUE)));
}

/** Four doubles as floats, 0 where below 1e-19: products of two such stay out of the subnormal numbers, which are slow. */
// @ts-ignore: decorator
@inline
function rounded(a: v128, b: v128): v128 {
  const x = v128.shuffle<f32>(f32x4.demote_f64x2_zero(a), f32x4.demote_f64x2_zero(b), 0, 1, 4, 5);
  return v128.andnot(x, f32x4.lt(f32x4.abs(x), f32x4.splat(1e-19)));
}
