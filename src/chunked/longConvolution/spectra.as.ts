/**
 * Products of spectra of real sequences that share a complex transform (README.md here). With A = Z(f) and B = conj Z(-f), the two sequences have the spectra
 * (A + B) / 2 and (A - B) / 2i. In bit-reversed order f and -f lie mirrored within each block [2^k, 2^(k+1)); 0 and 1 mirror themselves.
 */
import { madd } from '../wasm/lib/math.as';

/**
 * From the transform of the taps: for each pair, in the order in which `applySpectra` meets them, S = (K1 + K2) / 2N and D = (K1 - K2) / 2N, [re, im, re, im].
 */
export function kernelSpectra(data: usize, spectra: usize, N: i32): void {
  const scale = f32x4.splat(<f32>(0.25 / <f64>N));
  for (let size = 0; size < N; size = max(1, size << 1)) {
    let p = data + (<usize>size << 5), q = data + (<usize>(size ? 2 * size - 1 : 0) << 5);
    for (let pairs = max(1, size >> 1); pairs > 0; pairs--, p += 32, q -= 32, spectra += 64) {
      const ar = v128.load(p), ai = v128.load(p, 16), br = v128.load(q), bi = f32x4.neg(v128.load(q, 16));
      const sr = f32x4.add(ar, br), si = f32x4.add(ai, bi), dr = f32x4.sub(ar, br), di = f32x4.sub(ai, bi);
      v128.store(spectra, f32x4.mul(scale, f32x4.add(sr, di))); // s - i d
      v128.store(spectra, f32x4.mul(scale, f32x4.sub(si, dr)), 16);
      v128.store(spectra, f32x4.mul(scale, f32x4.sub(sr, di)), 32);
      v128.store(spectra, f32x4.mul(scale, f32x4.add(si, dr)), 48);
    }
  }
}

/** Z(f) becomes A S + B D, which is K1 Z1 + i K2 Z2, and conj Z(-f) becomes B S + A D. */
export function applySpectra(data: usize, spectra: usize, N: i32): void {
  for (let size = 0; size < N; size = max(1, size << 1)) {
    let p = data + (<usize>size << 5), q = data + (<usize>(size ? 2 * size - 1 : 0) << 5);
    for (let pairs = max(1, size >> 1); pairs > 0; pairs--, p += 32, q -= 32, spectra += 64)
      applyPair(p, q, v128.load(spectra), v128.load(spectra, 16), v128.load(spectra, 32), v128.load(spectra, 48));
  }
}

// @ts-ignore: decorator
@inline
function applyPair(p: usize, q: usize, sr: v128, si: v128, dr: v128, di: v128): void {
  const ar = v128.load(p), ai = v128.load(p, 16), br = v128.load(q), bi = f32x4.neg(v128.load(q, 16));
  v128.store(p, f32x4.add(productRe(ar, ai, sr, si), productRe(br, bi, dr, di)));
  v128.store(p, f32x4.add(productIm(ar, ai, sr, si), productIm(br, bi, dr, di)), 16);
  v128.store(q, f32x4.add(productRe(br, bi, sr, si), productRe(ar, ai, dr, di)));
  v128.store(q, f32x4.neg(f32x4.add(productIm(br, bi, sr, si), productIm(ar, ai, dr, di))), 16);
}

/**
 * Of the upstream's spectrum in `data` and that of the inputs: adds the spectrum of the gradient of the taps, G = G1 + i G2 with Gj = gYj conj Uj / N, to `sums`, and
 * makes `data` the spectrum of the gradient of the inputs, by conj S and conj D.
 */
export function applyAndCorrelate(data: usize, inputs: usize, spectra: usize, sums: usize, N: i32): void {
  const scale = f32x4.splat(<f32>(0.25 / <f64>N));
  for (let size = 0; size < N; size = max(1, size << 1)) {
    let p = <usize>size << 5, q = <usize>(size ? 2 * size - 1 : 0) << 5;
    for (let pairs = max(1, size >> 1); pairs > 0; pairs--, p += 32, q -= 32, spectra += 64) {
      correlatePair(data, inputs, sums, p, q, scale);
      applyPair(data + p, data + q, v128.load(spectra), f32x4.neg(v128.load(spectra, 16)), v128.load(spectra, 32), f32x4.neg(v128.load(spectra, 48)));
    }
  }
}

// @ts-ignore: decorator
@inline
function correlatePair(data: usize, inputs: usize, sums: usize, p: usize, q: usize, scale: v128): void {
  const gr = v128.load(data + p), gi = v128.load(data + p, 16), hr = v128.load(data + q), hi = f32x4.neg(v128.load(data + q, 16));
  const ur = v128.load(inputs + p), ui = v128.load(inputs + p, 16), vr = v128.load(inputs + q), vi = f32x4.neg(v128.load(inputs + q, 16));
  const xr = f32x4.add(gr, hr), xi = f32x4.add(gi, hi), yr = f32x4.add(ur, vr), yi = f32x4.neg(f32x4.add(ui, vi));
  const r1 = f32x4.mul(scale, productRe(xr, xi, yr, yi)), i1 = f32x4.mul(scale, productIm(xr, xi, yr, yi)); // G1
  const zr = f32x4.sub(gr, hr), zi = f32x4.sub(gi, hi), wr = f32x4.sub(ur, vr), wi = f32x4.sub(vi, ui);
  const r2 = f32x4.mul(scale, productRe(zr, zi, wr, wi)), i2 = f32x4.mul(scale, productIm(zr, zi, wr, wi)); // G2
  addTo(sums + p, f32x4.sub(r1, i2), f32x4.add(i1, r2));
  if (p != q) addTo(sums + q, f32x4.add(r1, i2), f32x4.sub(r2, i1)); // conj(G1 - i G2)
}

// @ts-ignore: decorator
@inline
function addTo(p: usize, re: v128, im: v128): void {
  v128.store(p, f32x4.add(v128.load(p), re));
  v128.store(p, f32x4.add(v128.load(p, 16), im), 16);
}

// @ts-ignore: decorator
@inline
function productRe(a: v128, b: v128, c: v128, d: v128): v128 {
  return f32x4.sub(f32x4.mul(a, c), f32x4.mul(b, d));
}

// @ts-ignore: decorator
@inline
function productIm(a: v128, b: v128, c: v128, d: v128): v128 {
  return madd(a, d, f32x4.mul(b, c));
}
