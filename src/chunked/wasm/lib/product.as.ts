/**
 * Small matrix products on packed scratch, for the chunked kernels. All sizes are padded, so there are no tails here.
 *
 * - A plain block is row-major with a row stride in bytes (`lda`, ...).
 * - A panel is 8 columns of a matrix, row-major and dense: 32 bytes a row. A matrix of N columns is N / 8 panels one after another.
 *   Right operands and results that are kept (states) are panels, so an inner loop reads memory in order.
 *
 * Every tile has 4 x 8 results in 8 vector registers: with 4 lanes, 2 multiply-adds a cycle and a latency of 4 cycles that is the
 * smallest tile at the machine's peak. Left operands are single floats broadcast from memory, so no transpose is needed.
 * The inner loops are not unrolled: with two steps in a body V8 moves the sums between registers, at half the speed (measured).
 */
import { madd } from './math.as';

/** Bytes of a row of a panel. */
// @ts-ignore: decorator
@inline
export const PANEL_ROW: usize = 32;

/**
 * C = [C +] A1 B1 + A2 B2 for one tile of 4 x 8: A1 [4, k1], A2 [4, k2] plain; B1, B2 panels; C plain. k1 and k2 are multiples of 4,
 * 0 included. `add` keeps what C holds.
 */
export function tileProduct(
  a: usize, lda: usize, b: usize, k: i32,
  a2: usize, lda2: usize, b2: usize, k2: i32,
  c: usize, ldc: usize, add: bool,
): void {
  let c00 = f32x4.splat(0), c01 = c00, c10 = c00, c11 = c00, c20 = c00, c21 = c00, c30 = c00, c31 = c00;
  const r1 = c + ldc, r2 = r1 + ldc, r3 = r2 + ldc;
  if (add) {
    c00 = v128.load(c);
    c01 = v128.load(c, 16);
    c10 = v128.load(r1);
    c11 = v128.load(r1, 16);
    c20 = v128.load(r2);
    c21 = v128.load(r2, 16);
    c30 = v128.load(r3);
    c31 = v128.load(r3, 16);
  }
  for (let part = 0; part < 2; part++) {
    const end = a + (<usize>k << 2);
    let a1 = a + lda, a3 = a1 + lda, a4 = a3 + lda;
    for (; a < end; a += 4, a1 += 4, a3 += 4, a4 += 4, b += 32) {
      const x = v128.load(b), y = v128.load(b, 16);
      let s = v128.load_splat<f32>(a);
      c00 = madd(s, x, c00);
      c01 = madd(s, y, c01);
      s = v128.load_splat<f32>(a1);
      c10 = madd(s, x, c10);
      c11 = madd(s, y, c11);
      s = v128.load_splat<f32>(a3);
      c20 = madd(s, x, c20);
      c21 = madd(s, y, c21);
      s = v128.load_splat<f32>(a4);
      c30 = madd(s, x, c30);
      c31 = madd(s, y, c31);
    }
    a = a2;
    lda = lda2;
    b = b2;
    k = k2;
  }
  v128.store(c, c00);
  v128.store(c, c01, 16);
  v128.store(r1, c10);
  v128.store(r1, c11, 16);
  v128.store(r2, c20);
  v128.store(r2, c21, 16);
  v128.store(r3, c30);
  v128.store(r3, c31, 16);
}

/**
 * C = from + A1 B1 + A2 B2 for a tile of `rows` (4 or 6) x 8, as tileProduct, k1 at least 1; `from` (0: zeros) is plain. 6 rows are a tenth
 * faster than 4 (measured): more sums are under way than the multiply-add's latency asks for.
 */
// @ts-ignore: decorator
@inline
export function tileOf(
  rows: i32, a: usize, lda: usize, b: usize, k: i32,
  a2: usize, lda2: usize, b2: usize, k2: i32,
  from: usize, ldf: usize, c: usize, ldc: usize,
): void {
  if (rows == 6) tile6(a, lda, b, k, a2, lda2, b2, k2, from, ldf, c, ldc);
  else tile4(a, lda, b, k, a2, lda2, b2, k2, from, ldf, c, ldc);
}

function tile6(
  a: usize, lda: usize, b: usize, k: i32,
  a2: usize, lda2: usize, b2: usize, k2: i32,
  from: usize, ldf: usize, c: usize, ldc: usize,
): void {
  tile(true, a, lda, b, k, a2, lda2, b2, k2, from, ldf, c, ldc);
}

function tile4(
  a: usize, lda: usize, b: usize, k: i32,
  a2: usize, lda2: usize, b2: usize, k2: i32,
  from: usize, ldf: usize, c: usize, ldc: usize,
): void {
  tile(false, a, lda, b, k, a2, lda2, b2, k2, from, ldf, c, ldc);
}

/** Rows of the next tile where `left` are to come (a multiple of 4 at first): as many tiles of 6 as leave a multiple of 4. */
// @ts-ignore: decorator
@inline
export function tileRows(left: i32): i32 { return left == 4 || left == 8 ? 4 : 6; }

/** A tile of 6 rows, or of 4. */
// @ts-ignore: decorator
@inline
function tile(
  six: bool, a: usize, lda: usize, b: usize, k: i32,
  a2: usize, lda2: usize, b2: usize, k2: i32,
  from: usize, ldf: usize, c: usize, ldc: usize,
): void {
  let c00 = f32x4.splat(0), c01 = c00, c10 = c00, c11 = c00, c20 = c00, c21 = c00, c30 = c00, c31 = c00;
  let c40 = c00, c41 = c00, c50 = c00, c51 = c00;
  if (from) {
    c00 = v128.load(from);
    c01 = v128.load(from, 16);
    from += ldf;
    c10 = v128.load(from);
    c11 = v128.load(from, 16);
    from += ldf;
    c20 = v128.load(from);
    c21 = v128.load(from, 16);
    from += ldf;
    c30 = v128.load(from);
    c31 = v128.load(from, 16);
    if (six) {
      from += ldf;
      c40 = v128.load(from);
      c41 = v128.load(from, 16);
      from += ldf;
      c50 = v128.load(from);
      c51 = v128.load(from, 16);
    }
  }
  let r1 = a + lda, r2 = r1 + lda, r3 = r2 + lda, r4 = r3 + lda, r5 = r4 + lda;
  const end = a + (<usize>k << 2);
  do {
    const x = v128.load(b), y = v128.load(b, 16);
    let s = v128.load_splat<f32>(a);
    c00 = madd(s, x, c00);
    c01 = madd(s, y, c01);
    s = v128.load_splat<f32>(r1);
    c10 = madd(s, x, c10);
    c11 = madd(s, y, c11);
    s = v128.load_splat<f32>(r2);
    c20 = madd(s, x, c20);
    c21 = madd(s, y, c21);
    s = v128.load_splat<f32>(r3);
    c30 = madd(s, x, c30);
    c31 = madd(s, y, c31);
    if (six) {
      s = v128.load_splat<f32>(r4);
      c40 = madd(s, x, c40);
      c41 = madd(s, y, c41);
      s = v128.load_splat<f32>(r5);
      c50 = madd(s, x, c50);
      c51 = madd(s, y, c51);
      r4 += 4;
      r5 += 4;
    }
    a += 4;
    r1 += 4;
    r2 += 4;
    r3 += 4;
    b += 32;
  } while (a < end);
  let q1 = a2 + lda2, q2 = q1 + lda2, q3 = q2 + lda2, q4 = q3 + lda2, q5 = q4 + lda2;
  const end2 = a2 + (<usize>k2 << 2);
  while (a2 < end2) {
    const x = v128.load(b2), y = v128.load(b2, 16);
    let s = v128.load_splat<f32>(a2);
    c00 = madd(s, x, c00);
    c01 = madd(s, y, c01);
    s = v128.load_splat<f32>(q1);
    c10 = madd(s, x, c10);
    c11 = madd(s, y, c11);
    s = v128.load_splat<f32>(q2);
    c20 = madd(s, x, c20);
    c21 = madd(s, y, c21);
    s = v128.load_splat<f32>(q3);
    c30 = madd(s, x, c30);
    c31 = madd(s, y, c31);
    if (six) {
      s = v128.load_splat<f32>(q4);
      c40 = madd(s, x, c40);
      c41 = madd(s, y, c41);
      s = v128.load_splat<f32>(q5);
      c50 = madd(s, x, c50);
      c51 = madd(s, y, c51);
      q4 += 4;
      q5 += 4;
    }
    a2 += 4;
    q1 += 4;
    q2 += 4;
    q3 += 4;
    b2 += 32;
  }
  v128.store(c, c00);
  v128.store(c, c01, 16);
  c += ldc;
  v128.store(c, c10);
  v128.store(c, c11, 16);
  c += ldc;
  v128.store(c, c20);
  v128.store(c, c21, 16);
  c += ldc;
  v128.store(c, c30);
  v128.store(c, c31, 16);
  if (!six) return;
  c += ldc;
  v128.store(c, c40);
  v128.store(c, c41, 16);
  c += ldc;
  v128.store(c, c50);
  v128.store(c, c51, 16);
}

/**
 * C = decay * from + A^T B for one panel: A [k, rows] plain, B [k, 8] panel, C and `from` [rows, 8] panels (they may be the same);
 * rows a multiple of 4, k of 2. The decay is `rowDecay` (one float per row of C), or `colDecay` (8 floats), or none where both are 0.
 * With `mirror` the result is also stored transposed: element (r, c) goes to mirror + c * 32, in the panel of r (panels of the mirror
 * are `mirrorPanel` bytes apart).
 */
export function panelUpdate(
  a: usize, lda: usize, b: usize, k: i32, from: usize, c: usize, rows: i32,
  rowDecay: usize, colDecay: usize, mirror: usize, mirrorPanel: usize,
): void {
  for (let r = 0; r < rows; r += 4, from += 128, c += 128, a += 16) {
    let c00 = v128.load(from), c01 = v128.load(from, 16), c10 = v128.load(from, 32), c11 = v128.load(from, 48);
    let c20 = v128.load(from, 64), c21 = v128.load(from, 80), c30 = v128.load(from, 96), c31 = v128.load(from, 112);
    if (rowDecay) {
      let s = v128.load_splat<f32>(rowDecay);
      c00 = f32x4.mul(c00, s);
      c01 = f32x4.mul(c01, s);
      s = v128.load_splat<f32>(rowDecay, 4);
      c10 = f32x4.mul(c10, s);
      c11 = f32x4.mul(c11, s);
      s = v128.load_splat<f32>(rowDecay, 8);
      c20 = f32x4.mul(c20, s);
      c21 = f32x4.mul(c21, s);
      s = v128.load_splat<f32>(rowDecay, 12);
      c30 = f32x4.mul(c30, s);
      c31 = f32x4.mul(c31, s);
      rowDecay += 16;
    } else if (colDecay) {
      let s = v128.load(colDecay);
      c00 = f32x4.mul(c00, s);
      c10 = f32x4.mul(c10, s);
      c20 = f32x4.mul(c20, s);
      c30 = f32x4.mul(c30, s);
      s = v128.load(colDecay, 16);
      c01 = f32x4.mul(c01, s);
      c11 = f32x4.mul(c11, s);
      c21 = f32x4.mul(c21, s);
      c31 = f32x4.mul(c31, s);
    }
    const end = b + (<usize>k << 5);
    let p = a;
    for (let q = b; q < end; q += 32, p += lda) {
      const x = v128.load(q), y = v128.load(q, 16);
      let s = v128.load_splat<f32>(p);
      c00 = madd(s, x, c00);
      c01 = madd(s, y, c01);
      s = v128.load_splat<f32>(p, 4);
      c10 = madd(s, x, c10);
      c11 = madd(s, y, c11);
      s = v128.load_splat<f32>(p, 8);
      c20 = madd(s, x, c20);
      c21 = madd(s, y, c21);
      s = v128.load_splat<f32>(p, 12);
      c30 = madd(s, x, c30);
      c31 = madd(s, y, c31);
    }
    v128.store(c, c00);
    v128.store(c, c01, 16);
    v128.store(c, c10, 32);
    v128.store(c, c11, 48);
    v128.store(c, c20, 64);
    v128.store(c, c21, 80);
    v128.store(c, c30, 96);
    v128.store(c, c31, 112);
    if (mirror) {
      const at = mirror + <usize>(r >> 3) * mirrorPanel + (<usize>(r & 4) << 2);
      storeTransposed(at, 32, c00, c10, c20, c30);
      storeTransposed(at + 128, 32, c01, c11, c21, c31);
    }
  }
}

/** Stores the transpose of four rows, `pitch` bytes a row. */
// @ts-ignore: decorator
@inline
export function storeTransposed(p: usize, pitch: usize, r0: v128, r1: v128, r2: v128, r3: v128): void {
  const a = v128.shuffle<f32>(r0, r1, 0, 4, 1, 5), b = v128.shuffle<f32>(r2, r3, 0, 4, 1, 5);
  const c = v128.shuffle<f32>(r0, r1, 2, 6, 3, 7), d = v128.shuffle<f32>(r2, r3, 2, 6, 3, 7);
  v128.store(p, v128.shuffle<f32>(a, b, 0, 1, 4, 5));
  v128.store(p + pitch, v128.shuffle<f32>(a, b, 2, 3, 6, 7));
  v128.store(p + 2 * pitch, v128.shuffle<f32>(c, d, 0, 1, 4, 5));
  v128.store(p + 3 * pitch, v128.shuffle<f32>(c, d, 2, 3, 6, 7));
}

/** C = A B^T for 4 rows: A [4, k], B [cols, k], C [4, cols], all plain; k a multiple of 4, cols of 2. */
export function rowsTimesRows(
  a: usize, lda: usize, b: usize, ldb: usize, k: i32, c: usize, ldc: usize, cols: i32,
): void {
  const bytes = <usize>k << 2;
  for (let j = 0; j < cols; j += 2, b += ldb << 1, c += 8) {
    let c00 = f32x4.splat(0), c01 = c00, c10 = c00, c11 = c00, c20 = c00, c21 = c00, c30 = c00, c31 = c00;
    let a0 = a, a1 = a + lda, a2 = a1 + lda, a3 = a2 + lda, b0 = b, b1 = b + ldb;
    for (const end = a + bytes; a0 < end; a0 += 16, a1 += 16, a2 += 16, a3 += 16, b0 += 16, b1 += 16) {
      const x = v128.load(b0), y = v128.load(b1);
      let s = v128.load(a0);
      c00 = madd(s, x, c00);
      c01 = madd(s, y, c01);
      s = v128.load(a1);
      c10 = madd(s, x, c10);
      c11 = madd(s, y, c11);
      s = v128.load(a2);
      c20 = madd(s, x, c20);
      c21 = madd(s, y, c21);
      s = v128.load(a3);
      c30 = madd(s, x, c30);
      c31 = madd(s, y, c31);
    }
    const r1 = c + ldc, r2 = r1 + ldc;
    const low = sums4(c00, c01, c10, c11), high = sums4(c20, c21, c30, c31);
    v128.store_lane<f64>(c, low, 0);
    v128.store_lane<f64>(r1, low, 1);
    v128.store_lane<f64>(r2, high, 0);
    v128.store_lane<f64>(r2 + ldc, high, 1);
  }
}

/** The sums of the lanes of four vectors, as one vector. */
// @ts-ignore: decorator
@inline
export function sums4(a: v128, b: v128, c: v128, d: v128): v128 {
  const ab = f32x4.add(v128.shuffle<f32>(a, b, 0, 4, 1, 5), v128.shuffle<f32>(a, b, 2, 6, 3, 7));
  const cd = f32x4.add(v128.shuffle<f32>(c, d, 0, 4, 1, 5), v128.shuffle<f32>(c, d, 2, 6, 3, 7));
  return f32x4.add(v128.shuffle<f32>(ab, cd, 0, 1, 4, 5), v128.shuffle<f32>(ab, cd, 2, 3, 6, 7));
}
