/**
 * Discretisation of diagonal modes (README.md here), in float64 throughout: two modes in a vector, float32 in memory. The subtraction in e^z - 1 then
 * costs no digit that float32 has, and below |z| = 1e-2 a series takes over.
 *
 * Modes are rows of M. dt has one number for each mode (`each` = 1) or one for each row; row r reads row r mod `copies` of a.
 */
import { roundTotal } from '../wasm/lib/blockSum.as';
import {
  addModes, againstIm, againstRe, imaginary, loadModes, real, storeModes, timesIm, timesRe,
} from '../wasm/lib/complex2.as';
import { low } from '../wasm/lib/double.as';
import { cos2, cosPart2, exp2, madd2, quarters2, remainder2, sin2, sinPart2, withoutTurns2 } from '../wasm/lib/exponential.as';

/** zeta and psi [rows, M, 2]. */
export function discretiseFwd(
  dt: usize, a: usize, zeta: usize, psi: usize, rows: i32, copies: i32, M: i32, each: i32, bilinear: i32,
): void {
  for (let r = 0; r < rows; r++) {
    let at = a + (<usize>((r % copies) * M) << 3);
    for (let m = 0; m < M; m += 2, at += 16) {
      const count = min(2, M - m), bytes = <usize>count << 3, step = loadSteps(dt, count, each);
      const modes = loadModes(at, count), re = real(modes), im = imaginary(modes);
      if (bilinear) bilinearPair(step, re, im, zeta, psi, count);
      else holdPair(step, re, im, zeta, psi, count);
      zeta += bytes;
      psi += bytes;
      if (each) dt += bytes >> 1;
    }
    if (!each) dt += 4;
  }
}

/** gDt as dt, and gA [copies, M, 2]; `total` is scratch for as many doubles as gA has numbers. */
export function discretiseBwd(
  dt: usize, a: usize, gZeta: usize, gPsi: usize, gDt: usize, gA: usize, rows: i32, copies: i32, M: i32, each: i32, bilinear: i32, total: usize,
): void {
  const size = copies * M << 1;
  memory.fill(total, 0, <usize>size << 3);
  for (let r = 0; r < rows; r++) {
    const from = (r % copies) * M;
    let at = a + (<usize>from << 3), sums = total + (<usize>from << 4), stepSum = f64x2.splat(0);
    for (let m = 0; m < M; m += 2, at += 16, sums += 32) {
      const count = min(2, M - m), bytes = <usize>count << 3, step = loadSteps(dt, count, each);
      const modes = loadModes(at, count), gz = loadModes(gZeta, count), gp = loadModes(gPsi, count);
      const g = bilinear
        ? bilinearBack(step, real(modes), imaginary(modes), real(gz), imaginary(gz), real(gp), imaginary(gp), sums, count)
        : holdBack(step, real(modes), imaginary(modes), real(gz), imaginary(gz), real(gp), imaginary(gp), sums, count);
      gZeta += bytes;
      gPsi += bytes;
      if (each) {
        const rounded = f32x4.demote_f64x2_zero(g);
        if (count == 2) v128.store64_lane(gDt, rounded, 0);
        else v128.store32_lane(gDt, rounded, 0);
        dt += bytes >> 1;
        gDt += bytes >> 1;
      } else {
        stepSum = f64x2.add(stepSum, g); // a missing second mode has gradients of zero
      }
    }
    if (!each) {
      store<f32>(gDt, <f32>(f64x2.extract_lane(stepSum, 0) + f64x2.extract_lane(stepSum, 1)));
      dt += 4;
      gDt += 4;
    }
  }
  roundTotal(total, gA, size);
}

/** Zero-order hold: zeta = z = dt a less whole turns, which float32 would round away digits for; psi = dt (e^z - 1) / z. */
function holdPair(step: v128, re: v128, im: v128, zeta: usize, psi: usize, count: i32): void {
  const x = f64x2.mul(step, re), y = f64x2.mul(step, im), small = isSmall(x, y);
  const er = f64x2.sub(expRe(x, y), f64x2.splat(1)), ei = expIm(x, y), inverse = inverseSquare(x, y);
  let sr = f64x2.splat(1), si = f64x2.splat(0); // 1 + z/2 (1 + z/3 (1 + ...))
  for (let k = 6; k > 1; k--) {
    const c = f64x2.splat(1 / <f64>k), tr = timesRe(x, y, sr, si);
    si = f64x2.mul(c, timesIm(x, y, sr, si));
    sr = madd2(c, tr, f64x2.splat(1));
  }
  const pr = v128.bitselect(sr, f64x2.mul(inverse, againstRe(x, y, er, ei)), small);
  const pi = v128.bitselect(si, f64x2.mul(inverse, againstIm(x, y, er, ei)), small);
  storeModes(zeta, x, withoutTurns2(y), count);
  storeModes(psi, f64x2.mul(step, pr), f64x2.mul(step, pi), count);
}

/** gA = dt gZeta + conj(dt^2 chi) gPsi with chi = d/dz (e^z - 1) / z, and what is given back: gDt = Re(conj(a) gZeta + conj(e^z) gPsi). */
function holdBack(step: v128, re: v128, im: v128, zr: v128, zi: v128, pr: v128, pi: v128, sums: usize, count: i32): v128 {
  const x = f64x2.mul(step, re), y = f64x2.mul(step, im), small = isSmall(x, y), er = expRe(x, y), ei = expIm(x, y);
  const inverse = inverseSquare(x, y), gr = f64x2.sub(er, f64x2.splat(1));
  const qr = f64x2.sub(er, f64x2.mul(inverse, againstRe(x, y, gr, ei))), qi = f64x2.sub(ei, f64x2.mul(inverse, againstIm(x, y, gr, ei)));
  let sr = f64x2.splat(1), si = f64x2.splat(0); // the sum of z^k / ((k + 2) k!), twice
  for (let k = 6; k > 0; k--) {
    const c = f64x2.splat(<f64>(k + 1) / <f64>((k + 2) * k)), tr = timesRe(x, y, sr, si);
    si = f64x2.mul(c, timesIm(x, y, sr, si));
    sr = madd2(c, tr, f64x2.splat(1));
  }
  const half = f64x2.splat(0.5), square = f64x2.mul(step, step);
  const cr = f64x2.mul(square, v128.bitselect(f64x2.mul(half, sr), f64x2.mul(inverse, againstRe(x, y, qr, qi)), small));
  const ci = f64x2.mul(square, v128.bitselect(f64x2.mul(half, si), f64x2.mul(inverse, againstIm(x, y, qr, qi)), small));
  addModes(sums, madd2(step, zr, againstRe(cr, ci, pr, pi)), madd2(step, zi, againstIm(cr, ci, pr, pi)), count);
  return f64x2.add(againstRe(re, im, zr, zi), againstRe(er, ei, pr, pi));
}

/** With w = z / 2: zeta = log((1 + w) / (1 - w)), psi = dt / (1 - w). */
function bilinearPair(step: v128, re: v128, im: v128, zeta: usize, psi: usize, count: i32): void {
  const half = f64x2.mul(step, f64x2.splat(0.5)), x = f64x2.mul(half, re), y = f64x2.mul(half, im);
  const rest = f64x2.sub(f64x2.splat(1), x), scale = f64x2.div(step, madd2(rest, rest, f64x2.mul(y, y)));
  storeModes(psi, f64x2.mul(scale, rest), f64x2.mul(scale, y), count);
  storeZeta(zeta, f64x2.extract_lane(x, 0), f64x2.extract_lane(y, 0));
  if (count == 2) storeZeta(zeta + 8, f64x2.extract_lane(x, 1), f64x2.extract_lane(y, 1));
}

/** Re = log(|1 + w|^2 / |1 - w|^2) / 2 and Im = arg((1 + w) conj(1 - w)), neither with a cancellation. */
function storeZeta(zeta: usize, x: f64, y: f64): void {
  const below = (1 - x) * (1 - x) + y * y;
  store<f32>(zeta, <f32>(0.5 * Math.log1p(4 * x / below)));
  store<f32>(zeta, <f32>Math.atan2(2 * y, 1 - x * x - y * y), 4);
}

/** gA = dt gZ + conj(psi^2 / 2) gPsi and gDt = Re(conj(a) gZ + conj((1 - w)^-2) gPsi), where gZ = conj((1 - w^2)^-1) gZeta. */
function bilinearBack(step: v128, re: v128, im: v128, zr: v128, zi: v128, pr: v128, pi: v128, sums: usize, count: i32): v128 {
  const half = f64x2.mul(step, f64x2.splat(0.5)), x = f64x2.mul(half, re), y = f64x2.mul(half, im), one = f64x2.splat(1);
  const rest = f64x2.sub(one, x), invert = f64x2.div(one, madd2(rest, rest, f64x2.mul(y, y)));
  const ir = f64x2.mul(invert, rest), ii = f64x2.mul(invert, y); // (1 - w)^-1
  const ur = timesRe(ir, ii, ir, ii), ui = timesIm(ir, ii, ir, ii);
  const wr = f64x2.sub(one, timesRe(x, y, x, y)), wi = timesIm(x, y, x, y); // the conjugate of 1 - w^2
  const under = f64x2.div(one, madd2(wr, wr, f64x2.mul(wi, wi)));
  const gr = f64x2.mul(under, againstRe(wr, wi, zr, zi)), gi = f64x2.mul(under, againstIm(wr, wi, zr, zi));
  const square = f64x2.mul(half, step), vr = againstRe(ur, ui, pr, pi), vi = againstIm(ur, ui, pr, pi);
  addModes(sums, madd2(step, gr, f64x2.mul(square, vr)), madd2(step, gi, f64x2.mul(square, vi)), count);
  return f64x2.add(againstRe(re, im, gr, gi), vr);
}

/** Whether the series is used: above, e^z - 1 has lost at most 7 binary digits of 53, below, what the series leaves out is under 1e-14. */
// @ts-ignore: decorator
@inline
function isSmall(x: v128, y: v128): v128 {
  return f64x2.lt(madd2(x, x, f64x2.mul(y, y)), f64x2.splat(1e-4));
}

// @ts-ignore: decorator
@inline
function inverseSquare(x: v128, y: v128): v128 {
  return f64x2.div(f64x2.splat(1), madd2(x, x, f64x2.mul(y, y)));
}

/** Re and Im of e^(x + iy). */
// @ts-ignore: decorator
@inline
function expRe(x: v128, y: v128): v128 {
  const q = quarters2(y), r = remainder2(y, q);
  return f64x2.mul(exp2(x), cos2(sinPart2(r), cosPart2(r), q));
}

// @ts-ignore: decorator
@inline
function expIm(x: v128, y: v128): v128 {
  const q = quarters2(y), r = remainder2(y, q);
  return f64x2.mul(exp2(x), sin2(sinPart2(r), cosPart2(r), q));
}

/** The steps of two modes, or of one and a zero. */
// @ts-ignore: decorator
@inline
function loadSteps(dt: usize, count: i32, each: i32): v128 {
  if (!each) return f64x2.splat(<f64>load<f32>(dt));
  return count == 2 ? low(dt, 0) : f64x2.promote_low_f32x4(v128.load32_zero(dt));
}
