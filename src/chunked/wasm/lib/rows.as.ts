/**
 * Moves rows between tensors (any width, any stride) and packed scratch, where widths are padded to a multiple of 8 with zeros.
 * The chunked kernels read every tensor once through these, so that their inner loops know neither strides nor tails.
 */
import { storeTransposed } from './product.as';
import { loadN, storeN } from './tail.as';

/** The next multiple of 8. */
// @ts-ignore: decorator
@inline
export function pad8(n: i32): i32 {
  return (n + 7) & ~7;
}

/** dst[r] = factor * src[r] for `n` rows of `width` floats, and zero rows up to `rows`; dst rows hold pad8(width) floats. */
export function packRows(src: usize, stride: usize, n: i32, width: i32, dst: usize, rows: i32, factor: f32): void {
  const padded = <usize>pad8(width) << 2, full = <usize>(width & ~3) << 2, f = f32x4.splat(factor);
  for (let r = 0; r < n; r++, src += stride, dst += padded) {
    let p: usize = 0;
    for (; p < full; p += 16) v128.store(dst + p, f32x4.mul(f, v128.load(src + p)));
    if (width & 3) {
      v128.store(dst + p, f32x4.mul(f, loadN(src + p, width & 3)));
      p += 16;
    }
    if (p < padded) v128.store(dst + p, f32x4.splat(0));
  }
  if (n < rows) memory.fill(dst, 0, <usize>(rows - n) * padded);
}

/** One panel (32 bytes a row) from columns `col`.. of `n` rows of `width` floats; missing columns, and rows up to `rows`, are 0. */
export function packPanel(src: usize, stride: usize, n: i32, width: i32, col: i32, dst: usize, rows: i32): void {
  const left = width - col;
  src += <usize>col << 2;
  if (left >= 8) {
    for (let r = 0; r < n; r++, src += stride, dst += 32) {
      v128.store(dst, v128.load(src));
      v128.store(dst, v128.load(src, 16), 16);
    }
  } else {
    for (let r = 0; r < n; r++, src += stride, dst += 32) {
      v128.store(dst, loadN(src, left));
      v128.store(dst, left > 4 ? loadN(src + 16, left - 4) : f32x4.splat(0), 16);
    }
  }
  if (n < rows) memory.fill(dst, 0, <usize>(rows - n) << 5);
}

/** One panel that holds the transpose of `n` (at most 8) rows of `width` floats: [pad8(width), 8]; missing rows and columns are 0. */
export function packTransposed(src: usize, stride: usize, n: i32, width: i32, dst: usize): void {
  const columns = pad8(width);
  for (let col = 0; col < columns; col += 4, src += 16, dst += 128) {
    const lanes = width - col;
    storeTransposed(dst, 32, rowPart(src, stride, 0, n, lanes), rowPart(src, stride, 1, n, lanes), rowPart(src, stride, 2, n, lanes), rowPart(src, stride, 3, n, lanes));
    storeTransposed(dst + 16, 32, rowPart(src, stride, 4, n, lanes), rowPart(src, stride, 5, n, lanes), rowPart(src, stride, 6, n, lanes), rowPart(src, stride, 7, n, lanes));
  }
}

/** Four floats of row r of n rows, of which `lanes` are left. */
// @ts-ignore: decorator
@inline
function rowPart(src: usize, stride: usize, r: i32, n: i32, lanes: i32): v128 {
  return r < n && lanes > 0 ? loadN(src + <usize>r * stride, lanes) : f32x4.splat(0);
}

/** The inverse of packPanel: the first `n` rows of a block of 8 columns with row stride `ld` to columns `col`.. of the rows at dst. */
export function unpackPanel(src: usize, ld: usize, dst: usize, stride: usize, n: i32, width: i32, col: i32): void {
  const left = width - col;
  dst += <usize>col << 2;
  for (let r = 0; r < n; r++, src += ld, dst += stride) {
    storeN(dst, v128.load(src), left);
    if (left > 4) storeN(dst + 16, v128.load(src, 16), left - 4);
  }
}

/** All panels of a dense [rows, cols] matrix; each panel has pad8(rows) rows. `src` = 0 gives zeros. */
export function packMatrix(src: usize, rows: i32, cols: i32, dst: usize): void {
  const padded = pad8(rows), panel = <usize>padded << 5;
  if (!src) {
    memory.fill(dst, 0, panel * <usize>(pad8(cols) >> 3));
    return;
  }
  for (let c = 0; c < cols; c += 8, dst += panel) packPanel(src, <usize>cols << 2, rows, cols, c, dst, padded);
}

/** The inverse of packMatrix. */
export function unpackMatrix(src: usize, rows: i32, cols: i32, dst: usize): void {
  const panel = <usize>pad8(rows) << 5;
  for (let c = 0; c < cols; c += 8, src += panel) unpackPanel(src, 32, dst, <usize>cols << 2, rows, cols, c);
}

/** Panels of the transpose of a matrix in panels: src has [pad8(rows), pad8(cols)], dst [pad8(cols), pad8(rows)]. */
export function transposePanels(src: usize, rows: i32, cols: i32, dst: usize): void {
  const R = pad8(rows), C = pad8(cols), panel = <usize>C << 5;
  for (let c = 0; c < C; c++)
    for (let r = 0; r < R; r++)
      store<f32>(
        dst + <usize>(r >> 3) * panel + (<usize>c << 5) + (<usize>(r & 7) << 2),
        load<f32>(src + (<usize>(c >> 3) * <usize>R << 5) + (<usize>r << 5) + (<usize>(c & 7) << 2)),
      );
}
