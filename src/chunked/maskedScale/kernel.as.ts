import { loadN, storeN } from '../wasm/lib/tail.as';

/** y[b,t,d] = x[b,t,d] * mask[b,d]; the gradient on x is the same of dy. */
export function maskedScale(x: usize, mask: usize, y: usize, B: i32, T: i32, D: i32): void {
  const width = <usize>D << 2, full = width & ~15;
  for (let b = 0; b < B; b++, mask += width)
    for (let t = 0; t < T; t++, x += width, y += width) {
      for (let p: usize = 0; p < full; p += 16) cell(x + p, mask + p, y + p, 4);
      if (D & 3) cell(x + full, mask + full, y + full, D & 3);
    }
}

// @ts-ignore: decorator
@inline
function cell(x: usize, mask: usize, y: usize, lanes: i32): void {
  storeN(y, f32x4.mul(loadN(x, lanes), loadN(mask, lanes)), lanes);
}
