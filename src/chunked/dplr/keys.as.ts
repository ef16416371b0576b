/** Gradients on q, a, k, b and g of a chunk (README, sections 4 and 5). */
import { finishGates, stateBytes } from '../wasm/lib/chunk.as';
import { madd } from '../wasm/lib/math.as';
import { PANEL_ROW, panelUpdate, rowsTimesRows, tileProduct } from '../wasm/lib/product.as';
import { unpackPanel } from '../wasm/lib/rows.as';
import { Back, CORNER, keyAt, PANEL_PAIR, Plan, panelAt, SCORE_ROW } from './plan.as';

// Panels of keysBwd: gradients through the states of reads and of writes, in pairs (2 panels each); reads or writes of other pairs (2);
// then the gradients themselves; e, what the gates' gradient is summed from, with a row before the first.
// @ts-ignore: decorator
@inline
function readSumsAt(p: Plan): usize { return panelAt(p, 0); }
// @ts-ignore: decorator
@inline
function writeSumsAt(p: Plan): usize { return panelAt(p, 2); }
// @ts-ignore: decorator
@inline
function stageAt(p: Plan): usize { return panelAt(p, 4); }
// @ts-ignore: decorator
@inline
function dqAt(p: Plan): usize { return panelAt(p, 6); }
// @ts-ignore: decorator
@inline
function daAt(p: Plan): usize { return panelAt(p, 7); }
// @ts-ignore: decorator
@inline
function dkAt(p: Plan): usize { return panelAt(p, 8); }
// @ts-ignore: decorator
@inline
function dbAt(p: Plan): usize { return panelAt(p, 9); }
// @ts-ignore: decorator
@inline
function eAt(p: Plan): usize { return panelAt(p, 10) + PANEL_ROW; }

/** Gradients on q, a, k, b and g of a chunk, 8 channels at a time. */
export function keysBwd(p: Plan, back: Back, t: i32, n: i32, h: i32, before: usize, dSt: usize): void {
  const Vp = p.Vp, K = p.K, row = <usize>Vp << 2, tiles = (n + 3) >> 2, panel = <usize>Vp << 5, size = stateBytes(K, p.V);
  for (let r: usize = 0; r < <usize>tiles << 1; r++)
    rowsTimesRows(back.upstream + r * (row << 2), row, back.values, row, Vp, p.dScores + r * (4 * SCORE_ROW), SCORE_ROW, (<i32>(r >> 1) + 1) << 3);
  const at = keyAt(p, 0, t, h), stride = p.keys;
  for (let col = 0; col < K; col += 8, before += panel, dSt += panel) {
    for (let r: usize = 0; r < <usize>tiles << 1; r++) {
      tileProduct(back.upstream + r * (row << 2), row, before, Vp, 0, 0, 0, 0, readSumsAt(p) + (r << 7), PANEL_ROW, false);
      tileProduct(back.values + r * (row << 2), row, dSt, Vp, 0, 0, 0, 0, writeSumsAt(p) + (r << 7), PANEL_ROW, false);
    }
    finishReads(p, col, tiles);
    finishWrites(p, col, tiles);
    finishGates(eAt(p), p.decays + (<usize>col << 2), <usize>p.Kp << 2, n, before + size, dSt, Vp);
    unpackPanel(dqAt(p), PANEL_ROW, back.dq + at, stride, n, K, col);
    unpackPanel(daAt(p), PANEL_ROW, back.da + at, stride, n, K, col);
    unpackPanel(dkAt(p), PANEL_ROW, back.dk + at, stride, n, K, col);
    unpackPanel(dbAt(p), PANEL_ROW, back.db + at, stride, n, K, col);
    unpackPanel(eAt(p), PANEL_ROW, back.dg + at, stride, n, K, col);
  }
}

/**
 * dq and da from (dO, dz) S^T, pair after pair. The stage holds the writes of earlier pairs, decayed to the end of the pair before. e gets
 * q * dq without the diagonal term, which cancels in the gate's gradient, and a * da of the next token, because a reads before its
 * own token's decay.
 */
function finishReads(p: Plan, col: i32, tiles: i32): void {
  const row = <usize>p.Kp << 2, stage = stageAt(p);
  let before0 = f32x4.splat(1), before1 = before0;
  for (let c: usize = 0; c < <usize>tiles; c++) {
    const x = readSumsAt(p) + c * PANEL_PAIR, dA = p.dScores + c * (8 * SCORE_ROW), at = (<usize>col << 2) + c * (row << 2);
    if (c) {
      scalePair(x, before0, before1);
      tileProduct(dA, SCORE_ROW, stage, <i32>c << 3, 0, 0, 0, 0, x, PANEL_ROW, true);
      tileProduct(dA + 4 * SCORE_ROW, SCORE_ROW, stage, <i32>c << 3, 0, 0, 0, 0, x + 128, PANEL_ROW, true);
    }
    before0 = f32x4.mul(before0, readBlock(p, at, dA + (c << 5), c, 0));
    before1 = f32x4.mul(before1, readBlock(p, at + 16, dA + (c << 5), c, 16));
  }
}

/** Multiplies the columns of a pair in a panel. */
// @ts-ignore: decorator
@inline
function scalePair(x: usize, f0: v128, f1: v128): void {
  for (const end = x + PANEL_PAIR; x < end; x += PANEL_ROW) {
    v128.store(x, f32x4.mul(v128.load(x), f0));
    v128.store(x, f32x4.mul(v128.load(x, 16), f1), 16);
  }
}

/** One pair of finishReads, 4 channels, `at` bytes into the rows and `half` into the panels; returns the decay through it. */
function readBlock(p: Plan, at: usize, dA: usize, c: usize, half: usize): v128 {
  const row = <usize>p.Kp << 2, row2 = row << 1, row3 = row2 + row, dB = dA + 4 * SCORE_ROW;
  const d = p.decays + at, k = p.kRows + at, b = p.bRows + at, q = p.qRows + at, a = p.aRows + at;
  const x = readSumsAt(p) + c * PANEL_PAIR + half, y = x + 128, out = (c << 7) + half;
  const dq = dqAt(p) + out, da = daAt(p) + out, e = eAt(p) + out, scale = f32x4.splat(p.scale);
  const d0 = v128.load(d), d1 = v128.load(d + row), d2 = v128.load(d + row2), d3 = v128.load(d + row3);
  const k0 = v128.load(k), k1 = v128.load(k + row), k2 = v128.load(k + row2), k3 = v128.load(k + row3);
  const b0 = v128.load(b), b1 = v128.load(b + row), b2 = v128.load(b + row2), b3 = v128.load(b + row3);

  let r = v128.load(y);
  v128.store(da, r);
  if (c) v128.store(e - PANEL_ROW, madd(v128.load(a), r, v128.load(e - PANEL_ROW)));
  r = f32x4.mul(d0, v128.load(x));
  let own = seen(dA, 0, k0, b0);
  v128.store(dq, f32x4.mul(scale, f32x4.add(r, own)));
  let sum = f32x4.mul(v128.load(q), r);

  r = madd(d0, v128.load(y, 32), seen(dB + SCORE_ROW, 0, k0, b0));
  v128.store(da, r, 32);
  v128.store(e, madd(v128.load(a + row), r, sum));
  r = f32x4.mul(d1, madd(d0, v128.load(x, 32), seen(dA + SCORE_ROW, 0, k0, b0)));
  own = seen(dA + SCORE_ROW, 4, k1, b1);
  v128.store(dq, f32x4.mul(scale, f32x4.add(r, own)), 32);
  sum = f32x4.mul(v128.load(q + row), r);

  r = madd(d0, v128.load(y, 64), seen(dB + 2 * SCORE_ROW, 0, k0, b0));
  r = madd(d1, r, seen(dB + 2 * SCORE_ROW, 4, k1, b1));
  v128.store(da, r, 64);
  v128.store(e, madd(v128.load(a + row2), r, sum), 32);
  r = madd(d0, v128.load(x, 64), seen(dA + 2 * SCORE_ROW, 0, k0, b0));
  r = f32x4.mul(d2, madd(d1, r, seen(dA + 2 * SCORE_ROW, 4, k1, b1)));
  own = seen(dA + 2 * SCORE_ROW, 8, k2, b2);
  v128.store(dq, f32x4.mul(scale, f32x4.add(r, own)), 64);
  sum = f32x4.mul(v128.load(q + row2), r);

  r = madd(d0, v128.load(y, 96), seen(dB + 3 * SCORE_ROW, 0, k0, b0));
  r = madd(d1, r, seen(dB + 3 * SCORE_ROW, 4, k1, b1));
  r = madd(d2, r, seen(dB + 3 * SCORE_ROW, 8, k2, b2));
  v128.store(da, r, 96);
  v128.store(e, madd(v128.load(a + row3), r, sum), 64);
  r = madd(d0, v128.load(x, 96), seen(dA + 3 * SCORE_ROW, 0, k0, b0));
  r = madd(d1, r, seen(dA + 3 * SCORE_ROW, 4, k1, b1));
  r = f32x4.mul(d3, madd(d2, r, seen(dA + 3 * SCORE_ROW, 8, k2, b2)));
  own = seen(dA + 3 * SCORE_ROW, 12, k3, b3);
  v128.store(dq, f32x4.mul(scale, f32x4.add(r, own)), 96);
  v128.store(e, f32x4.mul(v128.load(q + row3), r), 96);

  // The next pairs see these writes, and the earlier ones, decayed to the end of this pair.
  const u1 = f32x4.mul(d2, d3), u0 = f32x4.mul(d1, u1), through = f32x4.mul(d0, u0), stage = stageAt(p) + half, mine = stage + c * PANEL_PAIR;
  for (let s = stage; s < mine; s += PANEL_ROW) v128.store(s, f32x4.mul(v128.load(s), through));
  v128.store(mine, f32x4.mul(k0, u0));
  v128.store(mine, f32x4.mul(k1, u1), 32);
  v128.store(mine, f32x4.mul(k2, d3), 64);
  v128.store(mine, k3, 96);
  v128.store(mine, f32x4.mul(b0, u0), 128);
  v128.store(mine, f32x4.mul(b1, u1), 160);
  v128.store(mine, f32x4.mul(b2, d3), 192);
  v128.store(mine, b3, 224);
  return through;
}

/** What a read gets of the two writes of a token: their score gradients are 16 bytes apart, `token` bytes into the row. */
// @ts-ignore: decorator
@inline
function seen(dRow: usize, token: usize, k: v128, b: v128): v128 {
  return madd(v128.load_splat<f32>(dRow + token), k, f32x4.mul(v128.load_splat<f32>(dRow + token, 16), b));
}

/** dk and db from (v, z) dS^T, from the last pair to the first; e loses k * dk and b * db. The mirror image of finishReads. */
function finishWrites(p: Plan, col: i32, tiles: i32): void {
  const row = <usize>p.Kp << 2;
  let after0 = f32x4.splat(1), after1 = after0;
  for (let c = tiles - 1; c >= 0; c--) {
    const i = <usize>c, y = writeSumsAt(p) + i * PANEL_PAIR, own = p.dScores + i * CORNER, at = (<usize>col << 2) + i * (row << 2);
    if (c < tiles - 1) {
      scalePair(y, after0, after1);
      const later = stageAt(p) + (i + 1) * PANEL_PAIR;
      panelUpdate(own + 8 * SCORE_ROW, SCORE_ROW, later, (tiles - 1 - c) << 3, y, y, 8, 0, 0, 0, 0);
    }
    after0 = f32x4.mul(after0, writeBlock(p, at, own, i, tiles, 0));
    after1 = f32x4.mul(after1, writeBlock(p, at + 16, own, i, tiles, 16));
  }
}

/** One pair of finishWrites, 4 channels; returns the decay through it. */
function writeBlock(p: Plan, at: usize, dA: usize, c: usize, tiles: i32, half: usize): v128 {
  const row = <usize>p.Kp << 2, row2 = row << 1, row3 = row2 + row;
  const d = p.decays + at, q = p.qRows + at, a = p.aRows + at, out = (c << 7) + half;
  const y = writeSumsAt(p) + c * PANEL_PAIR + half, e = eAt(p) + out;
  writtenBlock(dA, d, q, a, p.kRows + at, row, y, dkAt(p) + out, e);
  writtenBlock(dA + 16, d, q, a, p.bRows + at, row, y + 128, dbAt(p) + out, e);
  // Earlier pairs see these reads, and the later ones, decayed from the start of this pair.
  const mine = stageAt(p) + c * PANEL_PAIR + half, end = stageAt(p) + <usize>tiles * PANEL_PAIR;
  let x = v128.load(d);
  v128.store(mine, f32x4.mul(v128.load(q), x));
  v128.store(mine, v128.load(a), 128);
  v128.store(mine, f32x4.mul(v128.load(a + row), x), 160);
  x = f32x4.mul(x, v128.load(d + row));
  v128.store(mine, f32x4.mul(v128.load(q + row), x), 32);
  v128.store(mine, f32x4.mul(v128.load(a + row2), x), 192);
  x = f32x4.mul(x, v128.load(d + row2));
  v128.store(mine, f32x4.mul(v128.load(q + row2), x), 64);
  v128.store(mine, f32x4.mul(v128.load(a + row3), x), 224);
  x = f32x4.mul(x, v128.load(d + row3));
  v128.store(mine, f32x4.mul(v128.load(q + row3), x), 96);
  for (let s = mine + PANEL_PAIR; s < end; s += PANEL_ROW) v128.store(s, f32x4.mul(v128.load(s), x));
  return x;
}

/** Gradient on k (or b, with its columns of dA) of a block of 4 tokens. */
function writtenBlock(dA: usize, d: usize, q: usize, a: usize, k: usize, row: usize, y: usize, dk: usize, e: usize): void {
  const row2 = row << 1, row3 = row2 + row, a1 = v128.load(a + row), a2 = v128.load(a + row2), a3 = v128.load(a + row3);
  const d1 = v128.load(d + row), d2 = v128.load(d + row2), d3 = v128.load(d + row3);
  const q1 = v128.load(q + row), q2 = v128.load(q + row2), q3 = v128.load(q + row3);
  const r1 = dA + SCORE_ROW, r2 = dA + 2 * SCORE_ROW, r3 = dA + 3 * SCORE_ROW;

  let w = f32x4.mul(d3, madd(v128.load_splat<f32>(r3), q3, v128.load(y)));
  w = madd(v128.load_splat<f32>(r3, 4 * SCORE_ROW), a3, w);
  w = f32x4.mul(d2, madd(v128.load_splat<f32>(r2), q2, w));
  w = madd(v128.load_splat<f32>(r2, 4 * SCORE_ROW), a2, w);
  w = f32x4.mul(d1, madd(v128.load_splat<f32>(r1), q1, w));
  w = madd(v128.load_splat<f32>(r1, 4 * SCORE_ROW), a1, w);
  v128.store(e, f32x4.sub(v128.load(e), f32x4.mul(v128.load(k), w)));
  v128.store(dk, madd(v128.load_splat<f32>(dA), v128.load(q), w));

  w = f32x4.mul(d3, madd(v128.load_splat<f32>(r3, 4), q3, v128.load(y, 32)));
  w = madd(v128.load_splat<f32>(r3, 4 * SCORE_ROW + 4), a3, w);
  w = f32x4.mul(d2, madd(v128.load_splat<f32>(r2, 4), q2, w));
  w = madd(v128.load_splat<f32>(r2, 4 * SCORE_ROW + 4), a2, w);
  v128.store(e, f32x4.sub(v128.load(e, 32), f32x4.mul(v128.load(k + row), w)), 32);
  v128.store(dk, madd(v128.load_splat<f32>(r1, 4), q1, w), 32);

  w = f32x4.mul(d3, madd(v128.load_splat<f32>(r3, 8), q3, v128.load(y, 64)));
  w = madd(v128.load_splat<f32>(r3, 4 * SCORE_ROW + 8), a3, w);
  v128.store(e, f32x4.sub(v128.load(e, 64), f32x4.mul(v128.load(k + row2), w)), 64);
  v128.store(dk, madd(v128.load_splat<f32>(r2, 8), q2, w), 64);

  w = v128.load(y, 96);
  v128.store(e, f32x4.sub(v128.load(e, 96), f32x4.mul(v128.load(k + row3), w)), 96);
  v128.store(dk, madd(v128.load_splat<f32>(r3, 12), q3, w), 96);
}
