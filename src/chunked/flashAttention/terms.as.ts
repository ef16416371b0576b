/**
 * What is added to the scores q . k before the softmax: a dense bias, the product of two factors, a band along the diagonal; and the mask
 * that hides keys. Queries t, keys j and columns c count from the first of a sequence, a key of it, and the first key of a tile.
 */
import { loadN, storeN } from '../wasm/lib/tail.as';

/** Bytes of a row of the scores of a tile. */
// @ts-ignore: decorator
@inline
export const SCORES_ROW: usize = 256;

/**
 * Given by the caller as a table of integers in this order. Addresses are 0 for what there is not, and for gradients nobody asked for.
 * Strides are in bytes: from sequence to sequence, head to head and token to token, 0 along an axis of length 1.
 */
// @ts-ignore: decorator
@unmanaged
export class Terms {
  /** The sequences lie one after another: what has an axis of tokens has those of all. */
  packed: i32;
  /** A byte for each key, 0: hidden. */
  mask: usize;
  /** Numbers of a factor; 0: there are none. */
  rank: i32;
  /** The band has the keys less than `width` from the query's own position: 2 width - 1 numbers for each query. */
  width: i32;
  // Rows of all keys: [*, *, T, S].
  bias: usize;
  dBias: usize;
  biasBatch: usize;
  biasHead: usize;
  biasRow: usize;
  // Factors of queries and of keys.
  phiQ: usize;
  dPhiQ: usize;
  phiQBatch: usize;
  phiQHead: usize;
  phiQRow: usize;
  phiK: usize;
  dPhiK: usize;
  phiKBatch: usize;
  phiKHead: usize;
  phiKRow: usize;
  band: usize;
  dBand: usize;
  bandBatch: usize;
  bandHead: usize;
  bandRow: usize;
  // The same for the sequence and head at hand, from its first query and key; see `place`.
  maskAt: usize;
  biasAt: usize;
  dBiasAt: usize;
  phiQAt: usize;
  dPhiQAt: usize;
  phiKAt: usize;
  dPhiKAt: usize;
  bandAt: usize;
  dBandAt: usize;
}

/** Turns to head h of sequence n, whose first query and key are these of all tokens, and whose first query stands at position `shift`. */
export function place(x: Terms, n: i32, h: i32, query: i32, key: i32, shift: i32): void {
  const b = <usize>n, i = <usize>h;
  const first = x.packed ? <usize>query : 0, firstKey = x.packed ? <usize>key : 0, batch = x.packed ? 0 : b;
  x.maskAt = offset(x.mask, <usize>key);
  const bias = batch * x.biasBatch + i * x.biasHead + first * x.biasRow + (firstKey << 2);
  x.biasAt = offset(x.bias, bias);
  x.dBiasAt = offset(x.dBias, bias);
  const phiQ = batch * x.phiQBatch + i * x.phiQHead + first * x.phiQRow;
  x.phiQAt = offset(x.phiQ, phiQ);
  x.dPhiQAt = offset(x.dPhiQ, phiQ);
  const phiK = batch * x.phiKBatch + i * x.phiKHead + firstKey * x.phiKRow;
  x.phiKAt = offset(x.phiK, phiK);
  x.dPhiKAt = offset(x.dPhiK, phiK);
  const band = batch * x.bandBatch + i * x.bandHead + first * x.bandRow + (<usize>(x.width - 1 - shift) << 2);
  x.bandAt = offset(x.band, band);
  x.dBandAt = offset(x.dBand, band);
}

// @ts-ignore: decorator
@inline
function offset(address: usize, bytes: usize): usize { return address ? address + bytes : 0; }

/** Adds the bias and the band to n rows of scores from query t, in the columns from `col` to `end` of the tile from key j. */
// @ts-ignore: decorator
@inline
export function addTerms(x: Terms, scores: usize, t: i32, j: i32, n: i32, col: i32, end: i32, shift: i32): void {
  if (x.biasAt) addRows(scores, SCORES_ROW, x.biasAt + <usize>t * x.biasRow + (<usize>j << 2), x.biasRow, n, col, end);
  if (x.bandAt) eachBandRow(x, scores, x.bandAt, t, j, n, col, end, shift, false);
}

/** Adds n rows of dS to the gradients of the bias and of the band. */
// @ts-ignore: decorator
@inline
export function addTermGradients(x: Terms, dS: usize, t: i32, j: i32, n: i32, col: i32, end: i32, shift: i32): void {
  if (x.dBiasAt) addRows(x.dBiasAt + <usize>t * x.biasRow + (<usize>j << 2), x.biasRow, dS, SCORES_ROW, n, col, end);
  if (x.dBandAt) eachBandRow(x, dS, x.dBandAt, t, j, n, col, end, shift, true);
}

/** Columns `col` to `end` of n rows: to += from. */
function addRows(to: usize, toRow: usize, from: usize, fromRow: usize, n: i32, col: i32, end: i32): void {
  for (let r = 0; r < n; r++, to += toRow, from += fromRow)
    for (let c = col; c < end; c += 4) {
      const at = <usize>c << 2, left = end - c;
      storeN(to + at, f32x4.add(loadN(to + at, left), loadN(from + at, left)), left);
    }
}

/** The columns that are in the band: scores += band, or band += scores. Key j of query t is at band + t (bandRow - 4) + 4 j. */
function eachBandRow(
  x: Terms, scores: usize, band: usize, t: i32, j: i32, n: i32, col: i32, end: i32, shift: i32, gradient: bool,
): void {
  const step = x.bandRow - 4;
  band += <usize>t * step + (<usize>j << 2);
  for (let r = 0; r < n; r++, t++, scores += SCORES_ROW, band += step) {
    const own = t + shift - j, first = max(col, own - x.width + 1), last = min(end, own + x.width);
    if (gradient) addRows(band, 0, scores, 0, 1, first, last);
    else addRows(scores, 0, band, 0, 1, first, last);
  }
}

/** The bytes of 4 keys (of `n` that are left) as lanes that are all ones where the key is hidden. */
// @ts-ignore: decorator
@inline
function hidden4(mask: usize, n: i32): v128 {
  let bytes = v128.load8_lane(mask, f32x4.splat(0), 0);
  if (n > 1) bytes = v128.load8_lane(mask + 1, bytes, 4);
  if (n > 2) bytes = v128.load8_lane(mask + 2, bytes, 8);
  if (n > 3) bytes = v128.load8_lane(mask + 3, bytes, 12);
  return i32x4.eq(bytes, i32x4.splat(0));
}

/** Scores of masked keys become -Infinity in `n` rows. */
// @ts-ignore: decorator
@inline
export function hideKeys(x: Terms, scores: usize, j: i32, n: i32, col: i32, end: i32): void {
  if (x.maskAt) hideColumns(scores, x.maskAt + <usize>j, n, col, end);
}

function hideColumns(scores: usize, mask: usize, n: i32, col: i32, end: i32): void {
  const lowest = f32x4.splat(-Infinity);
  for (let c = col; c < end; c += 4) {
    const hidden = hidden4(mask + <usize>c, end - c);
    if (!v128.any_true(hidden)) continue;
    let p = scores + (<usize>c << 2);
    for (let r = 0; r < n; r++, p += SCORES_ROW) v128.store(p, v128.bitselect(lowest, v128.load(p), hidden));
  }
}

/** to += from for n rows of `width` floats that are `stride` bytes apart, from panels of 64 rows (8 columns, 32 bytes a row). */
export function addPanels(from: usize, to: usize, stride: usize, n: i32, width: i32): void {
  for (let col = 0; col < width; col += 8, from += 2048)
    for (let r: usize = 0; r < <usize>n; r++) {
      const p = from + (r << 5), q = to + r * stride + (<usize>col << 2), left = width - col;
      storeN(q, f32x4.add(loadN(q, left), v128.load(p)), left);
      if (left > 4) storeN(q + 16, f32x4.add(loadN(q + 16, left - 4), v128.load(p, 16)), left - 4);
    }
}

/** to += from for n rows of `width` floats, from rows of `row` bytes. */
export function addPacked(from: usize, row: usize, to: usize, stride: usize, n: i32, width: i32): void {
  for (let r = 0; r < n; r++, from += row, to += stride)
    for (let c = 0; c < width; c += 4) {
      const p = <usize>c << 2, left = width - c;
      storeN(to + p, f32x4.add(loadN(to + p, left), v128.load(from + p)), left);
    }
}
