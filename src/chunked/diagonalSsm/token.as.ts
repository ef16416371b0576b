/** One token of every sequence: the recurrence itself. */
import { hsum, madd } from '../wasm/lib/math.as';
import { bbarAt, cAt, constantBytes, rowBytes, stepsAt, sumsAt } from './plan.as';
import { constants, loadModes, storeModes } from './tables.as';

/** Bytes of scratch. */
export function diagonalSsmTokenScratch(M: i32): i32 {
  return <i32>constantBytes(M, 1);
}

/** As diagonalSsmFwd for N sequences of one token: u and o [N, H]. */
export function diagonalSsmToken(
  u: usize, zeta: usize, psi: usize, b: usize, c: usize, d: usize, initialState: usize, o: usize, finalState: usize,
  N: i32, H: i32, M: i32, copies: i32, factor: f32, s: usize,
): void {
  const mode = <usize>M << 3, row = rowBytes(M), part = row >> 1, bbar = bbarAt(s, M), weights = cAt(s, M);
  const step = stepsAt(s, M, 1) + row, x = sumsAt(s, M, 1);
  for (let h = 0; h < H; h++, u += 4, o += 4) {
    const at = <usize>h * mode, skip = d ? load<f32>(d + (<usize>h << 2)) : 0;
    constants(zeta + at, psi + at, b + <usize>(h % copies) * mode, c + at, 0, factor, M, 1, s);
    for (let n: usize = 0; n < <usize>N; n++) {
      const state = at + n * <usize>H * mode, token = n * (<usize>H << 2), input = load<f32>(u + token), splat = f32x4.splat(input);
      loadModes(initialState ? initialState + state : 0, M, x);
      let sum = f32x4.splat(0);
      for (let p: usize = 0; p < part; p += 16) {
        const er = v128.load(step + p), ei = v128.load(step + p + part), xr = v128.load(x + p), xi = v128.load(x + p + part);
        const writeR = f32x4.mul(v128.load(bbar + p), splat), writeI = f32x4.mul(v128.load(bbar + p + part), splat);
        const re = f32x4.add(xr, madd(er, xr, f32x4.sub(writeR, f32x4.mul(ei, xi))));
        const im = f32x4.add(xi, madd(er, xi, madd(ei, xr, writeI)));
        v128.store(x + p, re);
        v128.store(x + p + part, im);
        sum = f32x4.sub(madd(v128.load(weights + p), re, sum), f32x4.mul(v128.load(weights + p + part), im));
      }
      store<f32>(o + token, hsum(sum) + skip * input);
      if (finalState) storeModes(x, M, finalState + state);
    }
  }
}
