/**
 * The scan of modes x' = lambda x + v that are looked at after steps of any length: h_t = e^z_t h_{t-1} + psi_t b_t with z_t = lambda s_t,
 * s_t = dt * interval_t, the factors made where they are used (README.md here). Two modes in a vector of doubles; float32 in memory, where a
 * row is P pairs [re, im]. Absent pointers as in kernel.as.ts.
 */
import { roundTotal } from '../wasm/lib/blockSum.as';
import {
  addModes, againstIm, againstRe, imaginary, loadModes, real, storeModes, timesIm, timesRe,
} from '../wasm/lib/complex2.as';
import { low } from '../wasm/lib/double.as';
import { cos2, cosPart2, exp2, madd2, quarters2, remainder2, sin2, sinPart2 } from '../wasm/lib/exponential.as';
import { copyRow } from '../wasm/lib/tail.as';

/** o [rows, P, 2] and final [N, P, 2]; lambda [P, 2], dt [P], intervals [rows]. */
export function irregularScanFwd(
  lambda: usize, dt: usize, intervals: usize, b: usize, initial: usize, o: usize, final: usize,
  offsets: usize, N: i32, P: i32, bilinear: bool, reverse: bool,
): void {
  const row = <usize>P << 3;
  for (let s = 0; s < N; s++, offsets += 4, final += row) {
    const first = load<i32>(offsets), T = load<i32>(offsets, 4) - first;
    let before = initial ? initial + <usize>s * row : 0;
    for (let i = 0; i < T; i++) {
      const t = <usize>(first + (reverse ? T - 1 - i : i)), interval = <f64>load<f32>(intervals + (t << 2));
      advance(lambda, dt, interval, before, b + t * row, o + t * row, P, bilinear);
      before = o + t * row;
    }
    copyRow(before, final, P << 1);
  }
}

function advance(lambda: usize, dt: usize, interval: f64, before: usize, b: usize, o: usize, P: i32, bilinear: bool): void {
  for (let p = 0; p < P; p += 2, lambda += 16, dt += 8, b += 16, o += 16) {
    advancePair(lambda, dt, interval, before, b, o, min(2, P - p), bilinear);
    if (before) before += 16;
  }
}

// @ts-ignore: decorator
@inline
function advancePair(lambda: usize, dt: usize, interval: f64, before: usize, b: usize, o: usize, count: i32, bilinear: bool): void {
  const step = f64x2.mul(loadSteps(dt, count), f64x2.splat(interval)), modes = loadModes(lambda, count);
  const x = f64x2.mul(step, real(modes)), y = f64x2.mul(step, imaginary(modes)), one = f64x2.splat(1);
  let er: v128, ei: v128, pr: v128, pi: v128;
  if (bilinear) {
    const wr = f64x2.sub(one, half(x)), wi = half(y), inverse = f64x2.div(one, madd2(wr, wr, f64x2.mul(wi, wi)));
    pr = f64x2.mul(inverse, wr); // (1 - z/2)^-1
    pi = f64x2.mul(inverse, wi);
    er = f64x2.sub(f64x2.add(pr, pr), one);
    ei = f64x2.add(pi, pi);
  } else {
    const q = quarters2(y), r = remainder2(y, q), sine = sinPart2(r), cosine = cosPart2(r), size = exp2(x);
    er = f64x2.mul(size, cos2(sine, cosine, q));
    ei = f64x2.mul(size, sin2(sine, cosine, q));
    const gr = f64x2.sub(er, one), inverse = inverseSquare(x, y), small = isSmall(x, y);
    pr = v128.bitselect(seriesRe(x, y, 0), f64x2.mul(inverse, againstRe(x, y, gr, ei)), small);
    pi = v128.bitselect(seriesIm(x, y, 0), f64x2.mul(inverse, againstIm(x, y, gr, ei)), small);
  }
  pr = f64x2.mul(step, pr);
  pi = f64x2.mul(step, pi);
  const added = loadModes(b, count), br = real(added), bi = imaginary(added);
  let hr = timesRe(pr, pi, br, bi), hi = timesIm(pr, pi, br, bi);
  if (before) {
    const h = loadModes(before, count), r = real(h), i = imaginary(h);
    hr = f64x2.add(hr, timesRe(er, ei, r, i));
    hi = f64x2.add(hi, timesIm(er, ei, r, i));
  }
  storeModes(o, hr, hi, count);
}

/**
 * Gradients of sum(o dO) + sum(final dFinal). Scratch: `carry`, P pairs of floats; `totals`, 3 P doubles of zero: lambda's pairs, then dt's.
 */
export function irregularScanBwd(
  lambda: usize, dt: usize, intervals: usize, b: usize, initial: usize, o: usize, dO: usize, dFinal: usize,
  dLambda: usize, dDt: usize, dIntervals: usize, db: usize, dInitial: usize,
  offsets: usize, N: i32, P: i32, bilinear: bool, reverse: bool, carry: usize, totals: usize,
): void {
  const row = <usize>P << 3, steps = totals + (<usize>P << 4);
  for (let s = 0; s < N; s++, offsets += 4, dFinal += row) {
    const first = load<i32>(offsets), T = load<i32>(offsets, 4) - first;
    copyRow(dFinal, carry, P << 1);
    for (let i = T - 1; i >= 0; i--) {
      const t = <usize>(first + (reverse ? T - 1 - i : i)), back = reverse ? t + 1 : t - 1;
      const before = i ? o + back * row : initial ? initial + <usize>s * row : 0;
      const g = retreat(
        lambda, dt, <f64>load<f32>(intervals + (t << 2)), before, b + t * row, dO + t * row, carry, db + t * row, totals, steps, P, bilinear,
      );
      store<f32>(dIntervals + (t << 2), <f32>g);
    }
    if (dInitial) copyRow(carry, dInitial + <usize>s * row, P << 1);
  }
  roundTotal(totals, dLambda, P << 1);
  roundTotal(steps, dDt, P);
}

/** One token; returns the gradient on its interval. */
function retreat(
  lambda: usize, dt: usize, interval: f64, before: usize, b: usize, dO: usize, carry: usize, db: usize, totals: usize, steps: usize,
  P: i32, bilinear: bool,
): f64 {
  let sum = f64x2.splat(0);
  for (let p = 0; p < P; p += 2, lambda += 16, dt += 8, b += 16, dO += 16, carry += 16, db += 16, totals += 32, steps += 16) {
    const count = min(2, P - p), each = loadSteps(dt, count);
    const g = retreatPair(lambda, f64x2.mul(each, f64x2.splat(interval)), before, b, dO, carry, db, totals, count, bilinear);
    sum = madd2(g, each, sum); // a missing second mode has a step of 0
    const onStep = f64x2.mul(g, f64x2.splat(interval));
    if (count == 2) v128.store(steps, f64x2.add(v128.load(steps), onStep));
    else store<f64>(steps, load<f64>(steps) + f64x2.extract_lane(onStep, 0));
    if (before) before += 16;
  }
  return f64x2.extract_lane(sum, 0) + f64x2.extract_lane(sum, 1);
}

/**
 * With l = dO + carry: carry = conj(e^z) l, db = conj(psi) l, and for e = de^z/dz = dpsi/ds (both rules), g(z) = conj(e) l conj(h),
 * g(lambda) = s g(z) + s^2 conj(chi) l conj(b) with dpsi/dlambda = s^2 chi; returns g(s) = Re(conj(lambda) g(z) + conj(e) l conj(b)).
 */
// @ts-ignore: decorator
@inline
function retreatPair(
  lambda: usize, step: v128, before: usize, b: usize, dO: usize, carry: usize, db: usize, totals: usize, count: i32, bilinear: bool,
): v128 {
  const modes = loadModes(lambda, count), re = real(modes), im = imaginary(modes), one = f64x2.splat(1);
  const x = f64x2.mul(step, re), y = f64x2.mul(step, im);
  let ar: v128, ai: v128, er: v128, ei: v128, pr: v128, pi: v128, cr: v128, ci: v128; // e^z, e, psi / s, chi
  if (bilinear) {
    const wr = f64x2.sub(one, half(x)), wi = half(y), inverse = f64x2.div(one, madd2(wr, wr, f64x2.mul(wi, wi)));
    pr = f64x2.mul(inverse, wr);
    pi = f64x2.mul(inverse, wi);
    ar = f64x2.sub(f64x2.add(pr, pr), one);
    ai = f64x2.add(pi, pi);
    er = timesRe(pr, pi, pr, pi);
    ei = timesIm(pr, pi, pr, pi);
    cr = half(er);
    ci = half(ei);
  } else {
    const q = quarters2(y), r = remainder2(y, q), sine = sinPart2(r), cosine = cosPart2(r), size = exp2(x);
    er = f64x2.mul(size, cos2(sine, cosine, q));
    ei = f64x2.mul(size, sin2(sine, cosine, q));
    ar = er;
    ai = ei;
    const gr = f64x2.sub(er, one), inverse = inverseSquare(x, y), small = isSmall(x, y);
    pr = v128.bitselect(seriesRe(x, y, 0), f64x2.mul(inverse, againstRe(x, y, gr, ei)), small);
    pi = v128.bitselect(seriesIm(x, y, 0), f64x2.mul(inverse, againstIm(x, y, gr, ei)), small);
    const qr = f64x2.sub(er, pr), qi = f64x2.sub(ei, pi);
    cr = v128.bitselect(seriesRe(x, y, 1), f64x2.mul(inverse, againstRe(x, y, qr, qi)), small);
    ci = v128.bitselect(seriesIm(x, y, 1), f64x2.mul(inverse, againstIm(x, y, qr, qi)), small);
  }
  const upstream = loadModes(dO, count), carried = loadModes(carry, count);
  const lr = f64x2.add(real(upstream), real(carried)), li = f64x2.add(imaginary(upstream), imaginary(carried));
  storeModes(carry, againstRe(ar, ai, lr, li), againstIm(ar, ai, lr, li), count);
  storeModes(db, f64x2.mul(step, againstRe(pr, pi, lr, li)), f64x2.mul(step, againstIm(pr, pi, lr, li)), count);
  const added = loadModes(b, count), br = real(added), bi = imaginary(added);
  const vr = againstRe(br, bi, lr, li), vi = againstIm(br, bi, lr, li); // on psi
  let zr = f64x2.splat(0), zi = zr;
  if (before) {
    const h = loadModes(before, count), kr = real(h), ki = imaginary(h), sr = againstRe(kr, ki, lr, li), si = againstIm(kr, ki, lr, li);
    zr = againstRe(er, ei, sr, si);
    zi = againstIm(er, ei, sr, si);
  }
  addModes(
    totals,
    f64x2.mul(step, madd2(step, againstRe(cr, ci, vr, vi), zr)),
    f64x2.mul(step, madd2(step, againstIm(cr, ci, vr, vi), zi)),
    count,
  );
  return f64x2.add(againstRe(re, im, zr, zi), againstRe(er, ei, vr, vi));
}

// ---- Series below |z| = 1e-2: what they leave out is under 1e-12 ---------------------------------------------------------------

// @ts-ignore: decorator
@inline
function isSmall(x: v128, y: v128): v128 {
  return f64x2.lt(madd2(x, x, f64x2.mul(y, y)), f64x2.splat(1e-4));
}

/** Re of 1 + z/2 + z^2/6 + z^3/24 + z^4/120 ((e^z - 1) / z), or of its derivative 1/2 + z/3 + z^2/8 + z^3/30 + z^4/144. */
// @ts-ignore: decorator
@inline
function seriesRe(x: v128, y: v128, derivative: i32): v128 {
  const x2 = f64x2.sub(f64x2.mul(x, x), f64x2.mul(y, y)), y2 = f64x2.mul(f64x2.add(x, x), y); // z^2
  const r = madd2(x, coefficient(3, derivative), coefficient(2, derivative)), i = f64x2.mul(y, coefficient(3, derivative));
  const top = madd2(x2, coefficient(4, derivative), r), side = madd2(y2, coefficient(4, derivative), i);
  return f64x2.add(timesRe(x2, y2, top, side), madd2(x, coefficient(1, derivative), coefficient(0, derivative)));
}

// @ts-ignore: decorator
@inline
function seriesIm(x: v128, y: v128, derivative: i32): v128 {
  const x2 = f64x2.sub(f64x2.mul(x, x), f64x2.mul(y, y)), y2 = f64x2.mul(f64x2.add(x, x), y);
  const r = madd2(x, coefficient(3, derivative), coefficient(2, derivative)), i = f64x2.mul(y, coefficient(3, derivative));
  const top = madd2(x2, coefficient(4, derivative), r), side = madd2(y2, coefficient(4, derivative), i);
  return f64x2.add(timesIm(x2, y2, top, side), f64x2.mul(y, coefficient(1, derivative)));
}

/** Of z^k: 1 / (k + 1)!, or for the derivative 1 / (k! (k + 2)). */
// @ts-ignore: decorator
@inline
function coefficient(k: i32, derivative: i32): v128 {
  if (k == 0) return f64x2.splat(derivative ? 0.5 : 1);
  if (k == 1) return f64x2.splat(derivative ? 1.0 / 3 : 0.5);
  if (k == 2) return f64x2.splat(derivative ? 0.125 : 1.0 / 6);
  if (k == 3) return f64x2.splat(derivative ? 1.0 / 30 : 1.0 / 24);
  return f64x2.splat(derivative ? 1.0 / 144 : 1.0 / 120);
}

// ---- Complex numbers -----------------------------------------------------------------------------------------------------------

// @ts-ignore: decorator
@inline
function half(x: v128): v128 {
  return f64x2.mul(x, f64x2.splat(0.5));
}

// @ts-ignore: decorator
@inline
function inverseSquare(x: v128, y: v128): v128 {
  return f64x2.div(f64x2.splat(1), madd2(x, x, f64x2.mul(y, y)));
}

/** Two steps, or one and a zero. */
// @ts-ignore: decorator
@inline
function loadSteps(dt: usize, count: i32): v128 {
  return count == 2 ? low(dt, 0) : f64x2.promote_low_f32x4(v128.load32_zero(dt));
}
