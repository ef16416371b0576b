/** How a chunk is read, and the scores of its reads with its writes (README, section 3). */
import { diagonalBlock, stretchKeys, stretchQueries } from '../wasm/lib/blocks.as';
import { C, channelDecays, fetch } from '../wasm/lib/chunk.as';
import { madd } from '../wasm/lib/math.as';
import { rowsTimesRows, sums4 } from '../wasm/lib/product.as';
import { packRows } from '../wasm/lib/rows.as';
import { CORNER, keyAt, Plan, panelAt, SCORE_ROW, valueAt } from './plan.as';

/** Fetches what a chunk's change of the state is made of, z where it is known. */
export function fetchWrites(p: Plan, t: i32, n: i32, h: i32, z: bool): void {
  const sink = panelAt(p, 0);
  fetch(keyAt(p, p.k, t, h), p.keys, n, p.K, sink);
  fetch(keyAt(p, p.b, t, h), p.keys, n, p.K, sink);
  fetch(keyAt(p, p.g, t, h), p.keys, n, p.K, sink);
  fetch(valueAt(p, p.v, t, h), p.values, n, p.V, sink);
  if (z) fetch(valueAt(p, p.z, t, h), p.values, n, p.V, sink);
}

/** q (times scale), k, a, b and the decays of a chunk. */
export function readChunk(p: Plan, t: i32, n: i32, h: i32): void {
  fetch(keyAt(p, p.q, t, h), p.keys, n, p.K, panelAt(p, 0));
  fetch(keyAt(p, p.a, t, h), p.keys, n, p.K, panelAt(p, 0));
  packRows(keyAt(p, p.q, t, h), p.keys, n, p.K, p.qRows, C, p.scale);
  packRows(keyAt(p, p.k, t, h), p.keys, n, p.K, p.kRows, C, 1);
  packRows(keyAt(p, p.a, t, h), p.keys, n, p.K, p.aRows, C, 1);
  packRows(keyAt(p, p.b, t, h), p.keys, n, p.K, p.bRows, C, 1);
  channelDecays(keyAt(p, p.g, t, h), p.keys, n, p.K, p.decays, p.chunkDecay);
}

/**
 * After readChunk: reads, writes, and the scores of all reads with the writes they see: q with k and b up to its own token, a with those of
 * earlier tokens. Only the first `tiles` pairs, and of the scores only what is not above the diagonal of pairs.
 */
export function prepare(p: Plan, tiles: i32): void {
  const row = <usize>p.Kp << 2, block = row << 2, Kp = p.Kp, decays = p.decays;
  for (let c: usize = 0; c < <usize>tiles; c++) {
    const at = c * block, own = p.scores + c * CORNER, rows = p.scores + c * (8 * SCORE_ROW), below = rows + 4 * SCORE_ROW;
    const q = p.reads + 2 * at, a = q + block, k = p.writes + 2 * at, b = k + block;
    diagonalBlock(p.qRows + at, p.kRows + at, decays + at, q, k, row, own, SCORE_ROW, false);
    diagonalBlock(p.qRows + at, p.bRows + at, decays + at, q, b, row, own + 16, SCORE_ROW, false);
    strictBlock(p.aRows + at, p.kRows + at, decays + at, a, row, own + 4 * SCORE_ROW);
    strictBlock(p.aRows + at, p.bRows + at, decays + at, a, row, own + 4 * SCORE_ROW + 16);
    if (!c) continue;
    // Here reads of pair c start at its own beginning, and the writes of earlier pairs end there.
    rowsTimesRows(q, row, p.writes, row, Kp, rows, SCORE_ROW, <i32>c << 3);
    rowsTimesRows(a, row, p.writes, row, Kp, below, SCORE_ROW, <i32>c << 3);
    stretchQueries(q, decays, row, c);
    stretchQueries(a, decays, row, c);
    stretchKeys(p.writes, c << 3, decays + at, row);
  }
}

/**
 * Scores of a block's a with the writes of its earlier tokens (4 x 4, strictly lower triangle), a decayed from the block's start. It reads
 * before its own token's decay.
 */
function strictBlock(a: usize, k: usize, decay: usize, reads: usize, row: usize, scores: usize): void {
  const zero = f32x4.splat(0), row2 = row << 1, row3 = row2 + row;
  let s10 = zero, s20 = zero, s21 = zero, s30 = zero, s31 = zero, s32 = zero;
  for (const end = a + row; a < end; a += 16, k += 16, decay += 16, reads += 16) {
    const a1 = v128.load(a + row), a2 = v128.load(a + row2), a3 = v128.load(a + row3);
    const d1 = v128.load(decay + row), d2 = v128.load(decay + row2);
    let w = v128.load(k);
    s10 = madd(a1, w, s10);
    w = f32x4.mul(w, d1);
    s20 = madd(a2, w, s20);
    s30 = madd(a3, f32x4.mul(w, d2), s30);
    w = v128.load(k + row);
    s21 = madd(a2, w, s21);
    s31 = madd(a3, f32x4.mul(w, d2), s31);
    s32 = madd(a3, v128.load(k + row2), s32);
    v128.store(reads, v128.load(a));
    let d = v128.load(decay);
    v128.store(reads + row, f32x4.mul(a1, d));
    d = f32x4.mul(d, d1);
    v128.store(reads + row2, f32x4.mul(a2, d));
    v128.store(reads + row3, f32x4.mul(a3, f32x4.mul(d, d2)));
  }
  v128.store(scores, zero);
  v128.store(scores, sums4(s10, zero, zero, zero), SCORE_ROW);
  v128.store(scores, sums4(s20, s21, zero, zero), 2 * SCORE_ROW);
  v128.store(scores, sums4(s30, s31, s32, zero), 3 * SCORE_ROW);
}
