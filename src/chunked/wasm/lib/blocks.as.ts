/**
 * Decayed scores of a chunk, one gate per channel, in blocks of 4 tokens. "Queries" are rows that read: they are decayed from their
 * block's start to themselves; "keys" are rows that write: decayed from themselves to their block's end. Going from block to block,
 * earlier keys are stretched to the end of the block at hand, and its queries to the chunk's start.
 */
import { madd } from './math.as';
import { sums4 } from './product.as';

/**
 * One block of 4 tokens: its own scores (4 x 4, lower triangle, or upper when transposed; rows `scoreRow` bytes apart), queries
 * decayed from the block's start, keys decayed to its end.
 */
export function diagonalBlock(
  q: usize, k: usize, decay: usize, qg: usize, kc: usize, row: usize, scores: usize, scoreRow: usize, transposed: bool,
): void {
  const zero = f32x4.splat(0), row2 = row << 1, row3 = row2 + row;
  let s00 = zero, s10 = zero, s11 = zero, s20 = zero, s21 = zero, s22 = zero, s30 = zero, s31 = zero, s32 = zero, s33 = zero;
  for (const end = q + row; q < end; q += 16, k += 16, decay += 16, qg += 16, kc += 16) {
    const q0 = v128.load(q), q1 = v128.load(q + row), q2 = v128.load(q + row2), q3 = v128.load(q + row3);
    const d1 = v128.load(decay + row), d2 = v128.load(decay + row2), d3 = v128.load(decay + row3);
    let w = v128.load(k);
    s00 = madd(q0, w, s00);
    w = f32x4.mul(w, d1);
    s10 = madd(q1, w, s10);
    w = f32x4.mul(w, d2);
    s20 = madd(q2, w, s20);
    w = f32x4.mul(w, d3);
    s30 = madd(q3, w, s30);
    v128.store(kc, w);
    w = v128.load(k + row);
    s11 = madd(q1, w, s11);
    w = f32x4.mul(w, d2);
    s21 = madd(q2, w, s21);
    w = f32x4.mul(w, d3);
    s31 = madd(q3, w, s31);
    v128.store(kc + row, w);
    w = v128.load(k + row2);
    s22 = madd(q2, w, s22);
    w = f32x4.mul(w, d3);
    s32 = madd(q3, w, s32);
    v128.store(kc + row2, w);
    w = v128.load(k + row3);
    s33 = madd(q3, w, s33);
    v128.store(kc + row3, w);
    let p = v128.load(decay);
    v128.store(qg, f32x4.mul(q0, p));
    p = f32x4.mul(p, d1);
    v128.store(qg + row, f32x4.mul(q1, p));
    p = f32x4.mul(p, d2);
    v128.store(qg + row2, f32x4.mul(q2, p));
    p = f32x4.mul(p, d3);
    v128.store(qg + row3, f32x4.mul(q3, p));
  }
  const r1 = scores + scoreRow, r2 = r1 + scoreRow, r3 = r2 + scoreRow;
  if (transposed) {
    v128.store(scores, sums4(s00, s10, s20, s30));
    v128.store(r1, sums4(zero, s11, s21, s31));
    v128.store(r2, sums4(zero, zero, s22, s32));
    v128.store(r3, sums4(zero, zero, zero, s33));
  } else {
    v128.store(scores, sums4(s00, zero, zero, zero));
    v128.store(r1, sums4(s10, s11, zero, zero));
    v128.store(r2, sums4(s20, s21, s22, zero));
    v128.store(r3, sums4(s30, s31, s32, s33));
  }
}

/** Queries of block a (`queries`, decayed from its start) decay from the chunk's start instead. */
export function stretchQueries(queries: usize, decay: usize, row: usize, a: usize): void {
  const block = row << 2, mine = decay + a * block;
  for (let p: usize = 0; p < row; p += 16) {
    let before = f32x4.splat(1);
    for (let d = decay + p; d < mine; d += block) before = f32x4.mul(before, blockDecay(d, row));
    for (let at = queries + p, end = at + block; at < end; at += row) v128.store(at, f32x4.mul(v128.load(at), before));
  }
}

/** The first `count` rows of keys decay through the block of 4 tokens whose decays are given. */
export function stretchKeys(keys: usize, count: usize, decay: usize, row: usize): void {
  const bytes = count * row;
  for (let p: usize = 0; p < row; p += 16) {
    const through = blockDecay(decay + p, row);
    for (let at = keys + p, end = at + bytes; at < end; at += row) v128.store(at, f32x4.mul(v128.load(at), through));
  }
}

/** Product of the decays of 4 tokens. */
// @ts-ignore: decorator
@inline
export function blockDecay(d: usize, row: usize): v128 {
  const d2 = d + (row << 1);
  return f32x4.mul(f32x4.mul(f32x4.mul(v128.load(d), v128.load(d + row)), v128.load(d2)), v128.load(d2 + row));
}
