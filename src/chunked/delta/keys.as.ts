/** Gradients on q, k and g of a chunk (README, sections 6 and 7). */
import { C, finishGates, headGates, PANEL, SQUARE_ROW, stateBytes } from '../wasm/lib/chunk.as';
import { madd } from '../wasm/lib/math.as';
import { PANEL_ROW, panelUpdate, tileOf, tileProduct, tileRows } from '../wasm/lib/product.as';
import { packPanel, unpackPanel } from '../wasm/lib/rows.as';
import { gateAt, gateStride, Held, keyAt, keyStride, PER_CHANNEL, PER_HEAD, Plan, panelAt } from './plan.as';

/**
 * Gradients on q, k and g of a chunk, 8 channels at a time: the parts through the states are products here, those inside the chunk
 * are added by finishReads and finishWrites, or finishHead. Value heads that share q and k add up.
 */
export function keysBwd(p: Plan, b: Held, t: i32, n: i32, h: i32, before: usize, dSt: usize): void {
  const K = p.K, Vp = p.Vp, tiles = (n + 3) >> 2, row = <usize>Vp << 2, panel = <usize>Vp << 5, size = stateBytes(K, p.V);
  const reads = panelAt(p, 0), y = panelAt(p, 2), e = panelAt(p, 3), dq = panelAt(p, 4);
  const add = h % p.group != 0, stride = keyStride(p);
  if (p.gates != PER_CHANNEL) memory.fill(panelAt(p, 9), 0, PANEL);
  for (let col = 0; col < K; col += 8, before += panel, dSt += panel) {
    for (let left = tiles << 2, r: usize = 0; left > 0; ) {
      const count = tileRows(left), at = r * row, panel = r << 5;
      tileOf(count, b.dORows + at, row, before, Vp, 0, 0, 0, 0, 0, 0, reads + panel, PANEL_ROW);
      tileOf(count, b.totalRows + at, row, before, Vp, 0, 0, 0, 0, 0, 0, reads + PANEL + panel, PANEL_ROW);
      tileOf(count, b.writeRows + at, row, dSt, Vp, 0, 0, 0, 0, 0, 0, y + panel, PANEL_ROW);
      r += count;
      left -= count;
    }
    if (p.gates == PER_CHANNEL) {
      finishReads(p, col, tiles);
      finishWrites(p, col, tiles);
      finishGates(e, p.decays + (<usize>col << 2), <usize>p.Kp << 2, n, before + size, dSt, Vp);
      unpackPanel(e, PANEL_ROW, gateAt(p, b.dg, t, h), gateStride(p), n, K, col);
    } else {
      finishHead(p, col, tiles);
      if (p.gates) addStates(panelAt(p, 9) + 256, before + size, dSt, Vp);
    }
    storePanel(dq, keyAt(p, b.dq, t, h), stride, n, K, col, add, panelAt(p, 5));
    storePanel(y, keyAt(p, b.dk, t, h), stride, n, K, col, add, panelAt(p, 5));
  }
  if (p.gates == PER_HEAD) headGates(panelAt(p, 9), p.head, gateAt(p, b.dg, t, h), gateStride(p), n);
}

/** Stores n rows of a panel in columns `col`.., or adds them to what lies there. */
function storePanel(src: usize, dst: usize, stride: usize, n: i32, width: i32, col: i32, add: bool, tmp: usize): void {
  if (add) {
    packPanel(dst, stride, n, width, col, tmp, n);
    for (let at: usize = 0; at < <usize>n << 5; at += 16) v128.store(src + at, f32x4.add(v128.load(src + at), v128.load(tmp + at)));
  }
  unpackPanel(src, PANEL_ROW, dst, stride, n, width, col);
}

/**
 * Completes what queries and keys read, in 8 rows for every block: dq from dO S^T, then dk from -total S^T. The stage holds the keys of
 * earlier blocks decayed to the end of the block before. dq * scale goes to panel 4, dk stays; e = q * dq + k * dk without the diagonal
 * term, which cancels in the gate's gradient.
 */
function finishReads(p: Plan, col: i32, tiles: i32): void {
  const row = <usize>p.Kp << 2, at = <usize>col << 2, stage = panelAt(p, 5);
  let q = p.qRows + at, k = p.kRows + at, d = p.decays + at, x = panelAt(p, 0), e = panelAt(p, 3), dq = panelAt(p, 4), dA = p.dScores;
  let before0 = f32x4.splat(1), before1 = before0;
  for (let a: usize = 0; a < <usize>tiles; a++) {
    if (a) {
      for (let r = x; r < x + 128; r += 32) {
        v128.store(r, f32x4.mul(v128.load(r), before0));
        v128.store(r, f32x4.mul(v128.load(r, 16), before1), 16);
        v128.store(r, f32x4.mul(v128.load(r, PANEL), before0), PANEL);
        v128.store(r, f32x4.mul(v128.load(r, PANEL + 16), before1), PANEL + 16);
      }
      tileProduct(dA, SQUARE_ROW, stage, <i32>a << 2, 0, 0, 0, 0, x, PANEL_ROW, true);
      tileProduct(dA + 4 * SQUARE_ROW, SQUARE_ROW, stage, <i32>a << 2, 0, 0, 0, 0, x + PANEL, PANEL_ROW, true);
    }
    const corner = dA + (a << 4);
    before0 = f32x4.mul(before0, readBlock(q, k, d, row, corner, x, e, dq, stage, a, p.scale));
    before1 = f32x4.mul(before1, readBlock(q + 16, k + 16, d + 16, row, corner, x + 16, e + 16, dq + 16, stage + 16, a, p.scale));
    q += row << 2;
    k += row << 2;
    d += row << 2;
    x += 128;
    e += 128;
    dq += 128;
    dA += 8 * SQUARE_ROW;
  }
}

/** One block of finishReads, 4 channels; returns the decay through the block. */
function readBlock(
  q: usize, k: usize, d: usize, row: usize, dA: usize, x: usize, e: usize, dq: usize, stage: usize, a: usize, scale: f32,
): v128 {
  const row2 = row << 1, row3 = row2 + row;
  strictReads(k, d, row, dA, x);
  strictReads(k, d, row, dA + 4 * SQUARE_ROW, x + PANEL);
  const k0 = v128.load(k), k1 = v128.load(k + row), k2 = v128.load(k + row2), k3 = v128.load(k + row3), f = f32x4.splat(scale);
  let y = v128.load(x);
  v128.store(e, madd(v128.load(q), y, f32x4.mul(k0, v128.load(x, PANEL))));
  v128.store(dq, f32x4.mul(f, madd(v128.load_splat<f32>(dA), k0, y)));
  y = v128.load(x, 32);
  v128.store(e, madd(v128.load(q + row), y, f32x4.mul(k1, v128.load(x, PANEL + 32))), 32);
  v128.store(dq, f32x4.mul(f, madd(v128.load_splat<f32>(dA + SQUARE_ROW, 4), k1, y)), 32);
  y = v128.load(x, 64);
  v128.store(e, madd(v128.load(q + row2), y, f32x4.mul(k2, v128.load(x, PANEL + 64))), 64);
  v128.store(dq, f32x4.mul(f, madd(v128.load_splat<f32>(dA + 2 * SQUARE_ROW, 8), k2, y)), 64);
  y = v128.load(x, 96);
  v128.store(e, madd(v128.load(q + row3), y, f32x4.mul(k3, v128.load(x, PANEL + 96))), 96);
  v128.store(dq, f32x4.mul(f, madd(v128.load_splat<f32>(dA + 3 * SQUARE_ROW, 12), k3, y)), 96);
  // The next blocks see these keys, and the earlier ones, decayed to the end of this block.
  const d1 = v128.load(d + row), d2 = v128.load(d + row2), d3 = v128.load(d + row3), u1 = f32x4.mul(d2, d3), u0 = f32x4.mul(d1, u1);
  const through = f32x4.mul(v128.load(d), u0), own = stage + (a << 7);
  for (let r = stage; r < own; r += 32) v128.store(r, f32x4.mul(v128.load(r), through));
  v128.store(own, f32x4.mul(k0, u0));
  v128.store(own, f32x4.mul(k1, u1), 32);
  v128.store(own, f32x4.mul(k2, d3), 64);
  v128.store(own, k3, 96);
  return through;
}

/** x_i = x_i * decay 0..i + sum over j < i of dA_ij k_j * decay j+1..i, for the 4 rows of a block. */
// @ts-ignore: decorator
@inline
function strictReads(k: usize, d: usize, row: usize, dA: usize, x: usize): void {
  const row2 = row << 1, d1 = v128.load(d + row), d2 = v128.load(d + row2), d3 = v128.load(d + row2 + row);
  const k0 = v128.load(k), k1 = v128.load(k + row);
  let p = v128.load(d);
  v128.store(x, f32x4.mul(v128.load(x), p));
  p = f32x4.mul(p, d1);
  let t = f32x4.mul(v128.load_splat<f32>(dA + SQUARE_ROW), k0);
  v128.store(x, madd(d1, t, f32x4.mul(v128.load(x, 32), p)), 32);
  p = f32x4.mul(p, d2);
  t = f32x4.mul(v128.load_splat<f32>(dA + 2 * SQUARE_ROW), k0);
  t = madd(d1, t, f32x4.mul(v128.load_splat<f32>(dA + 2 * SQUARE_ROW, 4), k1));
  v128.store(x, madd(d2, t, f32x4.mul(v128.load(x, 64), p)), 64);
  p = f32x4.mul(p, d3);
  t = f32x4.mul(v128.load_splat<f32>(dA + 3 * SQUARE_ROW), k0);
  t = madd(d1, t, f32x4.mul(v128.load_splat<f32>(dA + 3 * SQUARE_ROW, 4), k1));
  t = madd(d2, t, f32x4.mul(v128.load_splat<f32>(dA + 3 * SQUARE_ROW, 8), v128.load(k + row2)));
  v128.store(x, madd(d3, t, f32x4.mul(v128.load(x, 96), p)), 96);
}

/**
 * Completes dk in panel y, which holds (beta * residual) dS^T, from the last block to the first, and adds what finishReads left; e loses
 * k times the part of y. The stage holds later queries and keys, 8 rows for every block. The mirror image of finishReads.
 */
function finishWrites(p: Plan, col: i32, tiles: i32): void {
  const row = <usize>p.Kp << 2, at = <usize>col << 2, stage = panelAt(p, 6), end = stage + (<usize>tiles << 8);
  let after0 = f32x4.splat(1), after1 = after0;
  for (let c = tiles - 1; c >= 0; c--) {
    const i = <usize>c, rows = at + i * (row << 2), panel = i << 7, corner = p.dScores + i * (8 * SQUARE_ROW + 16);
    const q = p.qRows + rows, k = p.kRows + rows, d = p.decays + rows, own = stage + (i << 8);
    const y = panelAt(p, 2) + panel, e = panelAt(p, 3) + panel, reads = panelAt(p, 1) + panel;
    if (c < tiles - 1) {
      for (let r = y; r < y + 128; r += 32) {
        v128.store(r, f32x4.mul(v128.load(r), after0));
        v128.store(r, f32x4.mul(v128.load(r, 16), after1), 16);
      }
      panelUpdate(corner + 8 * SQUARE_ROW, SQUARE_ROW, own + 256, (tiles - 1 - c) << 3, y, y, 4, 0, 0, 0, 0);
    }
    after0 = f32x4.mul(after0, writeBlock(q, k, d, row, corner, y, e, reads, own, end));
    after1 = f32x4.mul(after1, writeBlock(q + 16, k + 16, d + 16, row, corner, y + 16, e + 16, reads + 16, own + 16, end));
  }
}

/** One block of finishWrites, 4 channels; returns the decay through the block. */
function writeBlock(
  q: usize, k: usize, d: usize, row: usize, dA: usize, y: usize, e: usize, reads: usize, own: usize, end: usize,
): v128 {
  const row2 = row << 1, row3 = row2 + row, dB = dA + 4 * SQUARE_ROW;
  const d1 = v128.load(d + row), d2 = v128.load(d + row2), d3 = v128.load(d + row3), u1 = f32x4.mul(d2, d3), u0 = f32x4.mul(d1, u1);
  const q3 = v128.load(q + row3), k3 = v128.load(k + row3), q2 = v128.load(q + row2), k2 = v128.load(k + row2);
  const y3 = v128.load(y, 96);
  let t = madd(v128.load_splat<f32>(dB + 3 * SQUARE_ROW, 8), k3, f32x4.mul(v128.load_splat<f32>(dA + 3 * SQUARE_ROW, 8), q3));
  const y2 = madd(d3, t, f32x4.mul(v128.load(y, 64), d3));
  t = madd(v128.load_splat<f32>(dB + 3 * SQUARE_ROW, 4), k3, f32x4.mul(v128.load_splat<f32>(dA + 3 * SQUARE_ROW, 4), q3));
  t = madd(d3, t, f32x4.mul(v128.load_splat<f32>(dA + 2 * SQUARE_ROW, 4), q2));
  t = madd(v128.load_splat<f32>(dB + 2 * SQUARE_ROW, 4), k2, t);
  const y1 = madd(d2, t, f32x4.mul(v128.load(y, 32), u1));
  t = madd(v128.load_splat<f32>(dB + 3 * SQUARE_ROW), k3, f32x4.mul(v128.load_splat<f32>(dA + 3 * SQUARE_ROW), q3));
  t = madd(d3, t, f32x4.mul(v128.load_splat<f32>(dA + 2 * SQUARE_ROW), q2));
  t = madd(v128.load_splat<f32>(dB + 2 * SQUARE_ROW), k2, t);
  const q1 = v128.load(q + row), k1 = v128.load(k + row);
  t = madd(d2, t, f32x4.mul(v128.load_splat<f32>(dA + SQUARE_ROW), q1));
  t = madd(v128.load_splat<f32>(dB + SQUARE_ROW), k1, t);
  const y0 = madd(d1, t, f32x4.mul(v128.load(y), u0));
  const q0 = v128.load(q), k0 = v128.load(k);
  v128.store(e, f32x4.sub(v128.load(e), f32x4.mul(k0, y0)));
  v128.store(e, f32x4.sub(v128.load(e, 32), f32x4.mul(k1, y1)), 32);
  v128.store(e, f32x4.sub(v128.load(e, 64), f32x4.mul(k2, y2)), 64);
  v128.store(e, f32x4.sub(v128.load(e, 96), f32x4.mul(k3, y3)), 96);
  v128.store(y, madd(v128.load_splat<f32>(dA), q0, f32x4.add(y0, v128.load(reads))));
  v128.store(y, madd(v128.load_splat<f32>(dA + SQUARE_ROW, 4), q1, f32x4.add(y1, v128.load(reads, 32))), 32);
  v128.store(y, madd(v128.load_splat<f32>(dA + 2 * SQUARE_ROW, 8), q2, f32x4.add(y2, v128.load(reads, 64))), 64);
  v128.store(y, madd(v128.load_splat<f32>(dA + 3 * SQUARE_ROW, 12), q3, f32x4.add(y3, v128.load(reads, 96))), 96);
  // Earlier blocks see these rows, and the later ones, decayed from the start of this block.
  let p = v128.load(d);
  v128.store(own, f32x4.mul(q0, p));
  v128.store(own, f32x4.mul(k0, p), 128);
  p = f32x4.mul(p, d1);
  v128.store(own, f32x4.mul(q1, p), 32);
  v128.store(own, f32x4.mul(k1, p), 160);
  p = f32x4.mul(p, d2);
  v128.store(own, f32x4.mul(q2, p), 64);
  v128.store(own, f32x4.mul(k2, p), 192);
  p = f32x4.mul(p, d3);
  v128.store(own, f32x4.mul(q3, p), 96);
  v128.store(own, f32x4.mul(k3, p), 224);
  for (let r = own + 256; r < end; r += 32) v128.store(r, f32x4.mul(v128.load(r), p));
  return p;
}

/** Gates per head, or none: completes dq (panel 4) and dk (panel y) in 8 channels; adds e, summed over them, to the sums of panel 9. */
function finishHead(p: Plan, col: i32, tiles: i32): void {
  const row = <usize>p.Kp << 2, at = <usize>col << 2, keys = panelAt(p, 5), both = panelAt(p, 6), y = panelAt(p, 2);
  let q = p.qRows + at, k = p.kRows + at;
  packPanel(k, row, C, 8, 0, keys, C);
  for (let a: usize = 0; a < <usize>tiles; a++) {
    const dA = p.dScores + a * (8 * SQUARE_ROW), x = panelAt(p, 0) + a * 128, block = a * (row << 2);
    scale4(x, p.head + 64 + (a << 4));
    scale4(x + PANEL, p.head + 64 + (a << 4));
    tileProduct(dA, SQUARE_ROW, keys, <i32>(a + 1) << 2, 0, 0, 0, 0, x, PANEL_ROW, true);
    tileProduct(dA + 4 * SQUARE_ROW, SQUARE_ROW, keys, <i32>(a + 1) << 2, 0, 0, 0, 0, x + PANEL, PANEL_ROW, true);
    packPanel(q + block, row, 4, 8, 0, both + a * 256, 4);
    packPanel(k + block, row, 4, 8, 0, both + a * 256 + 128, 4);
  }
  panelUpdate(p.dScores, SQUARE_ROW, both, tiles << 3, y, y, tiles << 2, p.head + 128, 0, 0, 0);
  const f = f32x4.splat(p.scale);
  for (let r: usize = 0; r < <usize>tiles << 2; r++, q += row, k += row) {
    const d = v128.load_splat<f32>(p.head + 192 + (r << 2)), sums = panelAt(p, 9) + (r << 4);
    const x = panelAt(p, 0) + (r << 5), dy = y + (r << 5), dq = panelAt(p, 4) + (r << 5);
    let sum = v128.load(sums);
    for (let c: usize = 0; c < 32; c += 16) {
      const qr = v128.load(q + c), kr = v128.load(k + c), read = v128.load(x + c), keyRead = v128.load(x + c, PANEL), write = v128.load(dy + c);
      sum = madd(kr, f32x4.sub(keyRead, write), madd(qr, read, sum));
      v128.store(dq + c, f32x4.mul(f, madd(d, kr, read)));
      v128.store(dy + c, madd(d, qr, f32x4.add(keyRead, write)));
    }
    v128.store(sums, sum);
  }
}

/** Multiplies each of 4 rows of a panel by its factor. */
// @ts-ignore: decorator
@inline
function scale4(x: usize, factors: usize): void {
  for (const end = x + 128; x < end; x += 32, factors += 4) {
    const f = v128.load_splat<f32>(factors);
    v128.store(x, f32x4.mul(f, v128.load(x)));
    v128.store(x, f32x4.mul(f, v128.load(x, 16)), 16);
  }
}

/** Adds the sum of S * dS over a panel of the transposed states to four partial sums. */
function addStates(sums: usize, state: usize, dSt: usize, Vp: i32): void {
  let sum0 = v128.load(sums), sum1 = f32x4.splat(0);
  for (const end = state + (<usize>Vp << 5); state < end; state += 32, dSt += 32) {
    sum0 = madd(v128.load(state), v128.load(dSt), sum0);
    sum1 = madd(v128.load(state, 16), v128.load(dSt, 16), sum1);
  }
  v128.store(sums, f32x4.add(sum0, sum1));
}
