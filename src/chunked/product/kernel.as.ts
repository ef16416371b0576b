/**
 * C = op(A) op(B) + bias for any sizes and transposes: C [M, N], K summed over, all row-major and dense, op the transpose where its
 * flag is set. Two ways:
 *
 * - Blocked (Goto & van de Geijn 2008, https://doi.org/10.1145/1356052.1356053): a KC x NC block of B is packed into panels of 8
 *   columns, an MC x KC block of A into quads of 4 rows, and 4 x 8 tiles of C are summed in registers. A panel stays in the first
 *   cache, the block of A in the second. B without a transpose lies right already where few rows of A would pay for packing it.
 * - Streamed, for A B^T with few rows on one side (decoding) and for one row times B: nothing is packed, the large matrix is read once.
 *
 * Rounding, with u = 2^-24: a tile sums KC terms, blocks of terms are added one to the next, and past GROUP terms the sums go on in
 * float64. So |error of C[i]| <= (KC + GROUP / KC + 2) u sum_k |a_k b_k| for any K, that is 1.6e-5 of the terms; measured, up to a
 * million terms, 9e-7 for equal terms (the worst kind), 7e-7 for random ones of one sign, 1.4e-7 for those of both. Streamed dot
 * products have four sums of KC terms to a block and no float64: GROUP / KC is K / ROW_TERMS there.
 * NaN and Infinity go where they belong and nowhere else.
 */
import { flushPart, roundTotal } from '../wasm/lib/blockSum.as';
import { madd } from '../wasm/lib/math.as';
import { storeTransposed, sums4 } from '../wasm/lib/product.as';
import { packPanel, pad8, unpackPanel } from '../wasm/lib/rows.as';
import { loadN, storeN } from '../wasm/lib/tail.as';

/** Rows of a block of A: with KC, 128 kB. */
// @ts-ignore: decorator
@inline
const MC: i32 = 128;

/** Terms of a block: a panel of B is then 8 kB. */
// @ts-ignore: decorator
@inline
const KC: i32 = 256;

/** Columns of a block of B. */
// @ts-ignore: decorator
@inline
const NC: i32 = 1024;

/** Terms summed in float32, block by block, before they go into a float64 total. */
// @ts-ignore: decorator
@inline
const GROUP: i32 = 4096;

/** Rows of C with totals at one time: they bound the scratch memory. */
// @ts-ignore: decorator
@inline
const STRIP: i32 = 256;

/** Up to so many rows of A, an untransposed B is read where it lies. */
// @ts-ignore: decorator
@inline
const DIRECT: i32 = 16;

/** Rows of B read side by side for a single row of A. */
// @ts-ignore: decorator
@inline
const BAND: i32 = 16;

/** A B^T with up to so many rows on either side is done as rows times rows. */
// @ts-ignore: decorator
@inline
const FEW: i32 = 16;

/** Terms of rows times rows at a time; four lanes share them, so a lane sums KC. */
// @ts-ignore: decorator
@inline
const ROW_TERMS: i32 = 4 * KC;

/** Bytes of a tile that runs past the edge of C. */
// @ts-ignore: decorator
@inline
const EDGE: i32 = 128;

/** Bytes of scratch that `product` needs for these sizes. */
export function productScratch(M: i32, N: i32, K: i32): usize {
  const totals = K > GROUP ? <usize>min(M, STRIP) * <usize>N << 3 : 0;
  const depth = min(K, KC), blocks = depth * (min(pad8(N), NC) + min(pad8(M), MC));
  return totals + EDGE + (<usize>(pad8(N) + blocks) << 2);
}

/**
 * A is [M, K], or [K, M] with transposeA; B is [K, N], or [N, K] with transposeB. `bias` [N] is 0 for none. With `add` the product is
 * added to what C holds, and there is no bias.
 */
export function product(
  a: usize, transposeA: bool, b: usize, transposeB: bool, bias: usize, c: usize, M: i32, N: i32, K: i32, add: bool, scratch: usize,
): void {
  const aRow = transposeA ? 4 : <usize>K << 2, aCol = transposeA ? <usize>M << 2 : 4; // bytes from a row, a column, to the next
  const bRow = transposeB ? 4 : <usize>N << 2, bCol = transposeB ? <usize>K << 2 : 4, ldc = <usize>N << 2;
  if (aCol == 4 && bRow == 4 && min(M, N) <= FEW) {
    rowsTimesRows(a, aRow, b, bCol, bias, c, M, N, K, add);
    return;
  }
  const start = scratch; // a row of C before the first term, padded for whole tiles
  scratch += <usize>pad8(N) << 2;
  memory.fill(start, 0, <usize>pad8(N) << 2);
  if (K > GROUP) {
    longProduct(a, aRow, aCol, b, bRow, bCol, bias, start, c, M, N, K, add, scratch);
    return;
  }
  if (bias) memory.copy(start, bias, ldc);
  blocks(a, aRow, aCol, b, bRow, bCol, start, c, M, N, K, add, scratch);
}

/** c[i] += part[i] for n floats: what `add` does, where something else multiplied. */
export function productAdd(part: usize, c: usize, n: i32): void {
  for (; n >= 4; n -= 4, part += 16, c += 16) v128.store(c, f32x4.add(v128.load(c), v128.load(part)));
  if (n) storeN(c, f32x4.add(loadN(c, n), loadN(part, n)), n);
}

/** Strips of C, each with float64 totals over groups of terms. */
function longProduct(
  a: usize, aRow: usize, aCol: usize, b: usize, bRow: usize, bCol: usize,
  bias: usize, start: usize, c: usize, M: i32, N: i32, K: i32, add: bool, totals: usize,
): void {
  const scratch = totals + (<usize>min(M, STRIP) * <usize>N << 3);
  for (let i = 0; i < M; i += STRIP) {
    const rows = min(STRIP, M - i), strip = c + <usize>i * (<usize>N << 2);
    memory.fill(totals, 0, <usize>rows * <usize>N << 3);
    if (add) flushPart(strip, totals, rows * N);
    else if (bias) startTotals(totals, bias, rows, N);
    for (let k = 0; k < K; k += GROUP) {
      const from = a + <usize>i * aRow + <usize>k * aCol;
      blocks(from, aRow, aCol, b + <usize>k * bRow, bRow, bCol, start, strip, rows, N, min(GROUP, K - k), false, scratch);
      flushPart(strip, totals, rows * N);
    }
    roundTotal(totals, strip, rows * N);
  }
}

function startTotals(totals: usize, bias: usize, rows: i32, N: i32): void {
  for (let r = 0; r < rows; r++)
    for (let j = 0; j < N; j++, totals += 8) store<f64>(totals, load<f32>(bias + (<usize>j << 2)));
}

/** C = start + A B, block by block; `start` is one row of pad8(N) floats, or C itself with `add`. */
function blocks(
  a: usize, aRow: usize, aCol: usize, b: usize, bRow: usize, bCol: usize,
  start: usize, c: usize, M: i32, N: i32, K: i32, add: bool, scratch: usize,
): void {
  if (bCol == 4 && M == 1) {
    rowTimesMatrix(a, aCol, b, bRow, add ? c : start, c, N, K);
    return;
  }
  const ldc = <usize>N << 2, direct = bCol == 4 && M <= DIRECT, panels = scratch + EDGE;
  let k = 0;
  do {
    const depth = min(KC, K - k), panel = <usize>depth << 5;
    for (let j = 0; j < N; j += NC) {
      const columns = min(NC, N - j), left = b + <usize>k * bRow + <usize>j * bCol;
      const packed = direct ? columns & ~7 : 0; // columns that need no packing
      packPanels(left + (<usize>packed << 2), bRow, bCol, columns - packed, depth, panels);
      const quads = panels + (<usize>(pad8(columns) * depth) << 2);
      for (let i = 0; i < M; i += MC) {
        const rows = min(MC, M - i), corner = c + <usize>i * ldc + (<usize>j << 2);
        packQuads(a + <usize>i * aRow + <usize>k * aCol, aRow, aCol, rows, depth, quads);
        const sum = add || k != 0, from = sum ? corner : start + (<usize>j << 2), ldFrom = sum ? ldc : 0;
        if (direct) tiles(quads, rows, left, bRow, 32, packed, depth, from, ldFrom, corner, ldc, scratch);
        const past = <usize>packed << 2;
        tiles(quads, rows, panels, 32, panel, columns - packed, depth, from + past, ldFrom, corner + past, ldc, scratch);
      }
    }
    k += KC;
  } while (k < K);
}

/** Panels of 8 columns of B, 32 bytes a row; what lies past the last column is never read into C. */
function packPanels(b: usize, bRow: usize, bCol: usize, columns: i32, depth: i32, dst: usize): void {
  const panel = <usize>depth << 5;
  for (let j = 0; j < columns; j += 8, dst += panel) {
    if (bCol == 4) {
      packPanel(b, bRow, depth, columns, j, dst, depth);
    } else {
      const left = columns - j, p = b + <usize>j * bCol;
      packQuad(p, bCol, left, depth, dst, 32);
      if (left > 4) packQuad(p + 4 * bCol, bCol, left - 4, depth, dst + 16, 32);
    }
  }
}

/** Quads of 4 rows of A, 16 bytes a term. */
function packQuads(a: usize, aRow: usize, aCol: usize, rows: i32, depth: i32, dst: usize): void {
  const quad = <usize>depth << 4;
  let i = 0;
  if (aCol != 4)
    for (; i + 16 <= rows; i += 16, dst += 4 * quad, a += 64) packLines(a, aCol, depth, dst, quad);
  for (; i < rows; i += 4, dst += quad, a += 4 * aRow) {
    if (aCol == 4) packQuad(a, aRow, rows - i, depth, dst, 16);
    else packColumns(a, aCol, rows - i, depth, dst);
  }
}

/** Sixteen columns of k rows as four quads: a line of the cache at a time, since rows may lie in one another's place in the cache. */
function packLines(src: usize, stride: usize, k: i32, dst: usize, quad: usize): void {
  for (let i = 0; i < k; i++, src += stride, dst += 16) {
    v128.store(dst, v128.load(src));
    v128.store(dst + quad, v128.load(src, 16));
    v128.store(dst + 2 * quad, v128.load(src, 32));
    v128.store(dst + 3 * quad, v128.load(src, 48));
  }
}

/** Up to 4 rows of k floats as k rows of 4, `pitch` bytes apart; a missing row is a copy of the first. */
function packQuad(src: usize, stride: usize, rows: i32, k: i32, dst: usize, pitch: usize): void {
  const step1 = rows > 1 ? stride : 0, step2 = rows > 2 ? 2 * stride : 0, step3 = rows > 3 ? 3 * stride : 0;
  let i = 0;
  for (; i + 4 <= k; i += 4, src += 16, dst += 4 * pitch)
    storeTransposed(dst, pitch, v128.load(src), v128.load(src + step1), v128.load(src + step2), v128.load(src + step3));
  for (; i < k; i++, src += 4, dst += pitch) {
    store<f32>(dst, load<f32>(src));
    store<f32>(dst, load<f32>(src + step1), 4);
    store<f32>(dst, load<f32>(src + step2), 8);
    store<f32>(dst, load<f32>(src + step3), 12);
  }
}

/** Up to 4 columns of k rows. */
function packColumns(src: usize, stride: usize, columns: i32, k: i32, dst: usize): void {
  for (let i = 0; i < k; i++, src += stride, dst += 16) v128.store(dst, loadN(src, columns));
}

/** C = from + A B for packed A and panels of B that are `panel` bytes apart, with rows `ldb` bytes apart. */
function tiles(
  quads: usize, rows: i32, b: usize, ldb: usize, panel: usize, columns: i32, depth: i32,
  from: usize, ldFrom: usize, c: usize, ldc: usize, edge: usize,
): void {
  for (let j = 0; j < columns; j += 8, b += panel, from += 32, c += 32) {
    let a = quads, f = from, to = c;
    for (let i = 0; i < rows; i += 4, a += <usize>depth << 4, f += 4 * ldFrom, to += 4 * ldc) {
      if (rows - i >= 4 && columns - j >= 8) tile(a, b, ldb, depth, f, ldFrom, to, ldc);
      else edgeTile(a, b, ldb, depth, f, ldFrom, to, ldc, min(4, rows - i), min(8, columns - j), edge);
    }
  }
}

/** A tile of fewer rows or columns, by way of a whole one in scratch. */
function edgeTile(
  a: usize, b: usize, ldb: usize, depth: i32, from: usize, ldFrom: usize, c: usize, ldc: usize, rows: i32, columns: i32, edge: usize,
): void {
  if (ldFrom) {
    packPanel(c, ldc, rows, columns, 0, edge, 4);
    tile(a, b, ldb, depth, edge, 32, edge, 32);
  } else tile(a, b, ldb, depth, from, 0, edge, 32);
  unpackPanel(edge, 32, c, ldc, rows, columns, 0);
}

/**
 * C = from + A B for 4 x 8 results in eight registers: with 4 lanes, two multiply-adds a cycle and a latency of 4 cycles it takes at
 * least so many. One term a turn: with two, V8 (Node 20) makes code of half the speed.
 */
function tile(a: usize, b: usize, ldb: usize, depth: i32, from: usize, ldFrom: usize, c: usize, ldc: usize): void {
  let c00 = f32x4.splat(0), c01 = c00, c10 = c00, c11 = c00, c20 = c00, c21 = c00, c30 = c00, c31 = c00;
  for (const end = a + (<usize>depth << 4); a < end; a += 16, b += ldb) {
    const x = v128.load(b), y = v128.load(b, 16);
    const s0 = v128.load32_splat(a), s1 = v128.load32_splat(a, 4), s2 = v128.load32_splat(a, 8), s3 = v128.load32_splat(a, 12);
    c00 = madd(s0, x, c00);
    c01 = madd(s0, y, c01);
    c10 = madd(s1, x, c10);
    c11 = madd(s1, y, c11);
    c20 = madd(s2, x, c20);
    c21 = madd(s2, y, c21);
    c30 = madd(s3, x, c30);
    c31 = madd(s3, y, c31);
  }
  storeSums(c, from, c00, c01);
  storeSums(c + ldc, from + ldFrom, c10, c11);
  storeSums(c + 2 * ldc, from + 2 * ldFrom, c20, c21);
  storeSums(c + 3 * ldc, from + 3 * ldFrom, c30, c31);
}

/** What was there before is added last: added first, every term would be rounded to its size. */
// @ts-ignore: decorator
@inline
function storeSums(c: usize, from: usize, x: v128, y: v128): void {
  v128.store(c, f32x4.add(v128.load(from), x));
  v128.store(c, f32x4.add(v128.load(from, 16), y), 16);
}

/** C = start + A B for one row of A, a band of B at a time: its rows are read side by side, each in order. */
function rowTimesMatrix(a: usize, aCol: usize, b: usize, bRow: usize, start: usize, c: usize, N: i32, K: i32): void {
  let k = 0;
  do {
    const depth = min(BAND, K - k);
    for (let j = 0; j < N; j += 32) {
      const at = <usize>j << 2, from = k ? c : start;
      if (j + 32 <= N) addRows(a, aCol, b + at, bRow, depth, from + at, c + at);
      else addRowsEdge(a, aCol, b + at, bRow, depth, from + at, c + at, N - j);
    }
    a += BAND * aCol;
    b += BAND * bRow;
    k += BAND;
  } while (k < K);
}

/** to[0 .. 31] = from + sum over k of a[k] times row k of B. */
function addRows(a: usize, aCol: usize, b: usize, bRow: usize, depth: i32, from: usize, to: usize): void {
  let c0 = f32x4.splat(0), c1 = c0, c2 = c0, c3 = c0, c4 = c0, c5 = c0, c6 = c0, c7 = c0;
  for (let k = 0; k < depth; k++, a += aCol, b += bRow) {
    const s = v128.load32_splat(a);
    c0 = madd(s, v128.load(b), c0);
    c1 = madd(s, v128.load(b, 16), c1);
    c2 = madd(s, v128.load(b, 32), c2);
    c3 = madd(s, v128.load(b, 48), c3);
    c4 = madd(s, v128.load(b, 64), c4);
    c5 = madd(s, v128.load(b, 80), c5);
    c6 = madd(s, v128.load(b, 96), c6);
    c7 = madd(s, v128.load(b, 112), c7);
  }
  storeSums(to, from, c0, c1);
  storeSums(to + 32, from + 32, c2, c3);
  storeSums(to + 64, from + 64, c4, c5);
  storeSums(to + 96, from + 96, c6, c7);
}

/** The same for the last columns, four at a time. */
function addRowsEdge(a: usize, aCol: usize, b: usize, bRow: usize, depth: i32, from: usize, to: usize, columns: i32): void {
  for (; columns > 0; columns -= 4, b += 16, from += 16, to += 16) {
    let sum = f32x4.splat(0), p = a, q = b;
    for (let k = 0; k < depth; k++, p += aCol, q += bRow) sum = madd(v128.load32_splat(p), loadN(q, columns), sum);
    storeN(to, f32x4.add(loadN(from, columns), sum), columns);
  }
}

/** C = bias (or C, with `add`) + A B^T, A [M, K], B [N, K]: the side with more rows is read once, in order. */
function rowsTimesRows(a: usize, lda: usize, b: usize, ldb: usize, bias: usize, c: usize, M: i32, N: i32, K: i32, add: bool): void {
  const ldc = <usize>N << 2;
  let k = 0;
  do {
    const depth = min(ROW_TERMS, K - k);
    if (M == 1) {
      for (let j = 0; j < N; j += 4) oneByFour(a, b, ldb, j, N, depth, add || k ? c : bias, c);
    } else if (M <= N) {
      for (let j = 0; j < N; j += 2)
        for (let i = 0; i < M; i += 4) fourByTwo(a, lda, i, M, b, ldb, j, N, depth, add || k != 0, bias, c, ldc);
    } else {
      for (let i = 0; i < M; i += 4)
        for (let j = 0; j < N; j += 2) fourByTwo(a, lda, i, M, b, ldb, j, N, depth, add || k != 0, bias, c, ldc);
    }
    a += ROW_TERMS << 2;
    b += ROW_TERMS << 2;
    k += ROW_TERMS;
  } while (k < K);
}

/** One row of A with rows j .. j + 3 of B; a row past the last is the last once more. */
// @ts-ignore: decorator
@inline
function oneByFour(a: usize, b: usize, ldb: usize, j: i32, N: i32, depth: i32, from: usize, c: usize): void {
  const j1 = min(j + 1, N - 1), j2 = min(j + 2, N - 1), j3 = min(j + 3, N - 1);
  let b0 = b + <usize>j * ldb, b1 = b + <usize>j1 * ldb, b2 = b + <usize>j2 * ldb, b3 = b + <usize>j3 * ldb;
  let s0 = f32x4.splat(0), s1 = s0, s2 = s0, s3 = s0, k = 0;
  for (; k + 4 <= depth; k += 4, a += 16, b0 += 16, b1 += 16, b2 += 16, b3 += 16) {
    const x = v128.load(a);
    s0 = madd(x, v128.load(b0), s0);
    s1 = madd(x, v128.load(b1), s1);
    s2 = madd(x, v128.load(b2), s2);
    s3 = madd(x, v128.load(b3), s3);
  }
  if (k < depth) {
    const n = depth - k, x = loadN(a, n);
    s0 = madd(x, loadN(b0, n), s0);
    s1 = madd(x, loadN(b1, n), s1);
    s2 = madd(x, loadN(b2, n), s2);
    s3 = madd(x, loadN(b3, n), s3);
  }
  const sums = sums4(s0, s1, s2, s3), left = N - j, at = <usize>j << 2;
  storeN(c + at, from ? f32x4.add(loadN(from + at, left), sums) : sums, left);
}

/** Rows i .. i + 3 of A with rows j and j + 1 of B; a row past the last is the last once more, and so is its result. */
function fourByTwo(
  a: usize, lda: usize, i: i32, M: i32, b: usize, ldb: usize, j: i32, N: i32, depth: i32, add: bool, bias: usize, c: usize, ldc: usize,
): void {
  const i1 = min(i + 1, M - 1), i2 = min(i + 2, M - 1), i3 = min(i + 3, M - 1), j1 = min(j + 1, N - 1);
  let a0 = a + <usize>i * lda, a1 = a + <usize>i1 * lda, a2 = a + <usize>i2 * lda, a3 = a + <usize>i3 * lda;
  let b0 = b + <usize>j * ldb, b1 = b + <usize>j1 * ldb;
  let c00 = f32x4.splat(0), c01 = c00, c10 = c00, c11 = c00, c20 = c00, c21 = c00, c30 = c00, c31 = c00, k = 0;
  for (; k + 4 <= depth; k += 4, a0 += 16, a1 += 16, a2 += 16, a3 += 16, b0 += 16, b1 += 16) {
    const x = v128.load(b0), y = v128.load(b1);
    const s0 = v128.load(a0), s1 = v128.load(a1), s2 = v128.load(a2), s3 = v128.load(a3);
    c00 = madd(s0, x, c00);
    c01 = madd(s0, y, c01);
    c10 = madd(s1, x, c10);
    c11 = madd(s1, y, c11);
    c20 = madd(s2, x, c20);
    c21 = madd(s2, y, c21);
    c30 = madd(s3, x, c30);
    c31 = madd(s3, y, c31);
  }
  if (k < depth) {
    const n = depth - k, x = loadN(b0, n), y = loadN(b1, n);
    const s0 = loadN(a0, n), s1 = loadN(a1, n), s2 = loadN(a2, n), s3 = loadN(a3, n);
    c00 = madd(s0, x, c00);
    c01 = madd(s0, y, c01);
    c10 = madd(s1, x, c10);
    c11 = madd(s1, y, c11);
    c20 = madd(s2, x, c20);
    c21 = madd(s2, y, c21);
    c30 = madd(s3, x, c30);
    c31 = madd(s3, y, c31);
  }
  const low = sums4(c00, c01, c10, c11), high = sums4(c20, c21, c30, c31);
  const rows = M - i, both = j1 > j, column = <usize>j << 2;
  c += <usize>i * ldc + column;
  const start = bias ? bias + column : 0;
  addPair(c, add ? c : start, f32x4.extract_lane(low, 0), f32x4.extract_lane(low, 1), both);
  if (rows > 1) addPair(c + ldc, add ? c + ldc : start, f32x4.extract_lane(low, 2), f32x4.extract_lane(low, 3), both);
  c += 2 * ldc;
  if (rows > 2) addPair(c, add ? c : start, f32x4.extract_lane(high, 0), f32x4.extract_lane(high, 1), both);
  if (rows > 3) addPair(c + ldc, add ? c + ldc : start, f32x4.extract_lane(high, 2), f32x4.extract_lane(high, 3), both);
}

// @ts-ignore: decorator
@inline
function addPair(c: usize, from: usize, x: f32, y: f32, both: bool): void {
  store<f32>(c, from ? load<f32>(from) + x : x);
  if (both) store<f32>(c, from ? load<f32>(from, 4) + y : y, 4);
}
