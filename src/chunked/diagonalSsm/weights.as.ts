/** The weights of a convolution's taps, w = c b psi, and their gradients. */
import { rowBytes } from './plan.as';
import { loadModes, rowProduct, storeModes } from './tables.as';

/** Bytes of scratch. */
export function diagonalSsmWeightsScratch(M: i32): i32 {
  return <i32>(5 * rowBytes(M));
}

/** w [H, M, 2] of c and psi [H, M, 2] and b [copies, M, 2]. */
export function diagonalSsmWeightsFwd(c: usize, psi: usize, b: usize, w: usize, H: i32, M: i32, copies: i32, s: usize): void {
  const mode = <usize>M << 3, y = s + rowBytes(M);
  for (let h = 0; h < H; h++) {
    const at = <usize>h * mode;
    loadModes(psi + at, M, s);
    loadModes(b + <usize>(h % copies) * mode, M, y);
    rowProduct(s, y, y, M, false, 1, false);
    loadModes(c + at, M, s);
    rowProduct(s, y, y, M, false, 1, false);
    storeModes(y, M, w + at);
  }
}

/** Gradients on c, psi and, summed over the channels that share it, b. */
export function diagonalSsmWeightsBwd(
  c: usize, psi: usize, b: usize, dw: usize, dc: usize, dPsi: usize, db: usize, H: i32, M: i32, copies: i32, s: usize,
): void {
  const mode = <usize>M << 3, row = rowBytes(M), factor = s + row, input = factor + row, gradient = input + row, sum = gradient + row;
  memory.fill(db, 0, <usize>copies * mode);
  for (let h = 0; h < H; h++) {
    const at = <usize>h * mode, shared = <usize>(h % copies) * mode;
    loadModes(c + at, M, s);
    loadModes(psi + at, M, factor);
    loadModes(b + shared, M, input);
    loadModes(dw + at, M, gradient);
    loadModes(db + shared, M, sum);
    rowProduct(s, gradient, gradient, M, true, 1, false); // on b psi
    rowProduct(factor, gradient, sum, M, true, 1, true);
    storeModes(sum, M, db + shared);
    rowProduct(input, gradient, gradient, M, true, 1, false);
    storeModes(gradient, M, dPsi + at);
    loadModes(dw + at, M, gradient);
    rowProduct(factor, input, input, M, false, 1, false);
    rowProduct(input, gradient, gradient, M, true, 1, false);
    storeModes(gradient, M, dc + at);
  }
}
