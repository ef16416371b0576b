import { madd } from '../../src/chunked/wasm/lib/math.as';

/**
 * c += a b, `repeats` times, for 128 x 128 blocks that stay in the first two caches: what one core can do in wasm when memory costs
 * nothing. a lies in panels of 4 rows and b in panels of 8 columns, so both are read in order; tiles of c live in eight registers.
 */
export function peak(a: usize, b: usize, c: usize, repeats: i32): void {
  for (let r = 0; r < repeats; r++) {
    for (let j = 0; j < 128; j += 8) {
      for (let i = 0; i < 128; i += 4) tile(a + (<usize>i << 9), b + (<usize>j << 9), c + (<usize>i << 9) + (<usize>j << 4));
    }
  }
}

// @ts-ignore: decorator
@inline
function tile(a: usize, b: usize, c: usize): void {
  let c00 = v128.load(c), c01 = v128.load(c, 16), c10 = v128.load(c, 32), c11 = v128.load(c, 48);
  let c20 = v128.load(c, 64), c21 = v128.load(c, 80), c30 = v128.load(c, 96), c31 = v128.load(c, 112);
  const end = a + 2048;
  for (; a < end; a += 16) {
    const b0 = v128.load(b), b1 = v128.load(b, 16);
    const a0 = v128.load32_splat(a), a1 = v128.load32_splat(a, 4), a2 = v128.load32_splat(a, 8), a3 = v128.load32_splat(a, 12);
    c00 = madd(a0, b0, c00);
    c01 = madd(a0, b1, c01);
    c10 = madd(a1, b0, c10);
    c11 = madd(a1, b1, c11);
    c20 = madd(a2, b0, c20);
    c21 = madd(a2, b1, c21);
    c30 = madd(a3, b0, c30);
    c31 = madd(a3, b1, c31);
    b += 32;
  }
  v128.store(c, c00);
  v128.store(c, c01, 16);
  v128.store(c, c10, 32);
  v128.store(c, c11, 48);
  v128.store(c, c20, 64);
  v128.store(c, c21, 80);
  v128.store(c, c30, 96);
  v128.store(c, c31, 112);
}
