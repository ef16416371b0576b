/** Tiles of gathered rows, what a query of a tile sees, and the sum over keys that are far behind. */
import { exp1, hsum, madd } from '../wasm/lib/math.as';
import { panelUpdate, tileProduct } from '../wasm/lib/product.as';
import { packPanel, packRows, packTransposed, pad8 } from '../wasm/lib/rows.as';
import { LOWEST, PAIR_ROW, Plan, TILE, TILE_PANEL } from './plan.as';

// ---- Rows -----------------------------------------------------------------------------------------------------------------------

/** index[i] = first + i for n rows of a tile, -1 for the rest. */
export function inOrder(index: usize, first: i32, n: i32): void {
  for (let i = 0; i < TILE; i++) store<i32>(index + (<usize>i << 2), i < n ? first + i : -1);
}

/** The rows of a tile from a tensor: 64 rows of pad8(width) floats times `factor`; 0 where the index is -1. */
export function gatherRows(src: usize, stride: usize, index: usize, width: i32, dst: usize, factor: f32): void {
  const row = <usize>pad8(width) << 2;
  for (let i: usize = 0; i < <usize>TILE; i++, dst += row) {
    const at = load<i32>(index + (i << 2));
    if (at < 0) memory.fill(dst, 0, row);
    else packRows(src + <usize>at * stride, stride, 1, width, dst, 1, factor);
  }
}

/** The rows of a tile from packed rows of `bytes`. */
export function gatherPacked(src: usize, bytes: usize, index: usize, dst: usize): void {
  for (let i: usize = 0; i < <usize>TILE; i++, dst += bytes) {
    const at = load<i32>(index + (i << 2));
    if (at < 0) memory.fill(dst, 0, bytes);
    else memory.copy(dst, src + <usize>at * bytes, bytes);
  }
}

/** One float for each row of a tile; `missing` where the index is -1. */
export function gatherFloats(src: usize, index: usize, dst: usize, missing: f32): void {
  for (let i: usize = 0; i < <usize>TILE; i++) {
    const at = load<i32>(index + (i << 2));
    store<f32>(dst + (i << 2), at < 0 ? missing : load<f32>(src + (<usize>at << 2)));
  }
}

/** The inverse of gatherPacked. */
export function scatterPacked(src: usize, bytes: usize, index: usize, dst: usize): void {
  for (let i: usize = 0; i < <usize>TILE; i++, src += bytes) {
    const at = load<i32>(index + (i << 2));
    if (at >= 0) memory.copy(dst + <usize>at * bytes, src, bytes);
  }
}

/** The inverse of gatherFloats. */
export function scatterFloats(src: usize, index: usize, dst: usize): void {
  for (let i: usize = 0; i < <usize>TILE; i++) {
    const at = load<i32>(index + (i << 2));
    if (at >= 0) store<f32>(dst + (<usize>at << 2), load<f32>(src + (i << 2)));
  }
}

/** Adds the rows of a tile, in panels, to packed rows of `padded` floats. */
export function addPanels(panels: usize, padded: i32, index: usize, dst: usize): void {
  const bytes = <usize>padded << 2;
  for (let i: usize = 0; i < <usize>TILE; i++) {
    const at = load<i32>(index + (i << 2));
    if (at < 0) continue;
    let to = dst + <usize>at * bytes, from = panels + (i << 5);
    for (let c = 0; c < padded; c += 8, to += 32, from += TILE_PANEL) {
      v128.store(to, f32x4.add(v128.load(to), v128.load(from)));
      v128.store(to, f32x4.add(v128.load(to, 16), v128.load(from, 16)), 16);
    }
  }
}

/** 64 packed rows as key panels. */
export function asColumns(rows: usize, padded: i32, dst: usize): void {
  const row = <usize>padded << 2;
  for (let i = 0; i < TILE; i += 8, rows += row << 3, dst += row << 3) packTransposed(rows, row, 8, padded, dst);
}

/** 64 packed rows as panels. */
export function asPanels(rows: usize, padded: i32, dst: usize): void {
  for (let c = 0; c < padded; c += 8, dst += TILE_PANEL) packPanel(rows, <usize>padded << 2, TILE, padded, c, dst, TILE);
}

/** The n keys of a tile whose numbers are in keyIndex, with their features where there are any. */
export function readKeys(p: Plan): void {
  gatherRows(p.k, p.keyRow, p.keyIndex, p.E, p.tk, 1);
  gatherRows(p.v, p.valueRow, p.keyIndex, p.V, p.tv, 1);
  if (!p.r) return;
  gatherPacked(p.kf, <usize>p.mp << 2, p.keyIndex, p.tkf);
  gatherFloats(p.ak, p.keyIndex, p.ta, LOWEST);
}

// ---- Products of a strip ----------------------------------------------------------------------------------------------------------

/** out[4, col..end] = rows times the key panels of a tile. */
// @ts-ignore: decorator
@inline
export function pairProducts(rows: usize, padded: i32, columns: usize, col: i32, end: i32, out: usize, outRow: usize): void {
  const row = <usize>padded << 2;
  for (let c = col; c < end; c += 8)
    tileProduct(rows, row, columns + <usize>c * row, padded, 0, 0, 0, 0, out + (<usize>c << 2), outRow, false);
}

/** out[4, padded] += pairs[4, col..end] times the rows of a tile in panels. */
// @ts-ignore: decorator
@inline
export function addOutputs(pairs: usize, panels: usize, col: i32, end: i32, out: usize, padded: i32): void {
  const at = pairs + (<usize>col << 2), row = <usize>padded << 2;
  panels += <usize>col << 5;
  for (let c = 0; c < padded; c += 8, panels += TILE_PANEL, out += 32)
    tileProduct(at, PAIR_ROW, panels, end - col, 0, 0, 0, 0, out, row, true);
}

// ---- What a query sees in the order of time ------------------------------------------------------------------------------------------
// Places in time count from the first key of the past that is in the window: query t of a call stands at past + t.

/** The keys before this one are far behind all queries from y on: they are summed. A multiple of 64. */
// @ts-ignore: decorator
@inline
export function farEnd(y: i32, window: i32): i32 { return max(0, y - window + 1) & ~(TILE - 1); }

/** The end of the keys that no query after place y has in its window. */
// @ts-ignore: decorator
@inline
export function behindEnd(p: Plan): i32 { return max(0, p.window ? p.past + p.T - p.window + 1 : p.past + p.T); }

/** Columns of a tile from key j that one of the 4 queries from y on sees exactly, rounded to 8. */
// @ts-ignore: decorator
@inline
export function exactFirst(y: i32, j: i32, window: i32): i32 { return max(0, y - window + 1 - j) & ~7; }
// @ts-ignore: decorator
@inline
export function exactEnd(y: i32, j: i32, window: i32): i32 { return window ? min(TILE, pad8(max(0, y + 4 - j))) : 0; }
/** The end of those that it sees through features. */
// @ts-ignore: decorator
@inline
export function throughEnd(y: i32, j: i32, window: i32): i32 { return min(TILE, pad8(max(0, y + 4 - window - j))); }

/** Masks of the columns of a strip in the order of time. `queries`: numbers of its 4 rows, -1 for none. */
export function timeMasks(p: Plan, queries: usize, j: i32, col: i32, end: i32): void {
  let s = p.scoreMask, f = p.productMask;
  for (let r: usize = 0; r < 4; r++, s += PAIR_ROW, f += PAIR_ROW) {
    const t = load<i32>(queries + (r << 2)), y = t < 0 ? -1 : p.past + t;
    const last = i32x4.splat(y), far = i32x4.splat(t < 0 ? -1 : y - p.window);
    let at = i32x4.add(i32x4.splat(j + col), i32x4(0, 1, 2, 3));
    for (let c = <usize>col << 2; c < <usize>end << 2; c += 16) {
      v128.store(s + c, v128.and(i32x4.gt_s(at, far), i32x4.le_s(at, last)));
      v128.store(f + c, i32x4.le_s(at, far));
      at = i32x4.add(at, i32x4.splat(4));
    }
  }
}

// ---- What a query sees in a round ------------------------------------------------------------------------------------------------------

/** Header of round r: places in the table of queries, their number, low, high, keys, their number, times, ranks in the rounds before. */
// @ts-ignore: decorator
@inline
export function roundPart(p: Plan, round: i32, part: usize): i32 { return load<i32>(p.header + (<usize>round << 5) + (part << 2)); }
// @ts-ignore: decorator
@inline
export function inTable(p: Plan, at: i32): usize { return p.tables + (<usize>at << 2); }

/** The queries of a tile of a round, from place `first` of its order, and what they see in it and in the rounds before. Returns their number. */
export function readRoundQueries(p: Plan, round: i32, first: i32): i32 {
  const n = min(TILE, roundPart(p, round, 1) - first), order = inTable(p, roundPart(p, round, 0) + first);
  for (let i = 0; i < TILE; i++) {
    const at = <usize>i << 2, t = i < n ? load<i32>(order + at) : -1;
    store<i32>(p.queryIndex + at, t);
    store<i32>(p.time + at, p.past + t);
    for (let before = 0; before <= round; before++) {
      const to = (<usize>before << 8) + at;
      store<i32>(p.low + to, t < 0 ? 0 : load<i32>(inTable(p, roundPart(p, before, 2) + t)));
      store<i32>(p.high + to, t < 0 ? 0 : load<i32>(inTable(p, roundPart(p, before, 3) + t)));
    }
  }
  return n;
}

/** First and end of the places that n rows of the tile see from row i on; end = 0 where they see none. */
// @ts-ignore: decorator
@inline
export function placesFirst(p: Plan, round: i32, i: i32, n: i32): i32 {
  let first = i32.MAX_VALUE;
  for (let at = (<usize>round << 8) + (<usize>i << 2), stop = at + (<usize>n << 2); at < stop; at += 4)
    if (load<i32>(p.high + at) > load<i32>(p.low + at)) first = min(first, load<i32>(p.low + at));
  return first;
}
// @ts-ignore: decorator
@inline
export function placesEnd(p: Plan, round: i32, i: i32, n: i32): i32 {
  let end = 0;
  for (let at = (<usize>round << 8) + (<usize>i << 2), stop = at + (<usize>n << 2); at < stop; at += 4)
    if (load<i32>(p.high + at) > load<i32>(p.low + at)) end = max(end, load<i32>(p.high + at));
  return end;
}

/** Numbers of the keys of a tile of a round, from `place` on. */
export function readRoundKeys(p: Plan, round: i32, place: i32): void {
  const n = roundPart(p, round, 5) - place, order = inTable(p, roundPart(p, round, 4) + place);
  for (let i = 0; i < TILE; i++) {
    const at = <usize>i << 2;
    store<i32>(p.keyIndex + at, i < n ? load<i32>(order + at) : -1);
  }
}

/** Masks of the columns of strip i: in the round's range, not in the window, and in no round before. */
export function roundMasks(p: Plan, round: i32, i: i32, place: i32, col: i32, end: i32): void {
  const count = roundPart(p, round, 5), times = inTable(p, roundPart(p, round, 6) + place), ranks = roundPart(p, round, 7) + place;
  for (let r: usize = 0; r < 4; r++) {
    const at = (<usize>(i << 2)) + (r << 2), out = p.scoreMask + r * PAIR_ROW;
    const mine = (<usize>round << 8) + at;
    const low = i32x4.splat(load<i32>(p.low + mine) - 1), high = i32x4.splat(load<i32>(p.high + mine));
    const recent = i32x4.splat(p.window ? load<i32>(p.time + at) - p.window + 1 : i32.MAX_VALUE);
    let here = i32x4.add(i32x4.splat(place + col), i32x4(0, 1, 2, 3));
    for (let c = <usize>col << 2; c < <usize>end << 2; c += 16) {
      let mask = v128.and(i32x4.gt_s(here, low), i32x4.lt_s(here, high));
      mask = v128.and(mask, i32x4.lt_s(v128.load(times + c), recent));
      for (let before = 0; before < round; before++) {
        const past = (<usize>before << 8) + at, rank = v128.load(inTable(p, ranks + before * count) + c);
        const found = v128.and(i32x4.ge_s(rank, i32x4.splat(load<i32>(p.low + past))), i32x4.lt_s(rank, i32x4.splat(load<i32>(p.high + past))));
        mask = v128.andnot(mask, found);
      }
      v128.store(out + c, mask);
      here = i32x4.add(here, i32x4.splat(4));
    }
  }
}

// ---- The sum over far keys ---------------------------------------------------------------------------------------------------------------

export function emptySum(p: Plan): void {
  memory.fill(p.sum, 0, <usize>p.mp * (<usize>p.Vp << 2));
  memory.fill(p.sumOnes, 0, <usize>p.mp << 2);
  p.sumScale = LOWEST;
}

/** Scale of the sum becomes `scale`: what is in it is multiplied by `factor`. */
export function rescaleSum(p: Plan, factor: f32, scale: f32): void {
  p.sumScale = scale;
  if (factor == 1) return;
  const f = f32x4.splat(factor);
  for (let at = p.sum, end = p.sum + <usize>p.mp * (<usize>p.Vp << 2); at < end; at += 16) v128.store(at, f32x4.mul(f, v128.load(at)));
  for (let at = p.sumOnes, end = at + (<usize>p.mp << 2); at < end; at += 16) v128.store(at, f32x4.mul(f, v128.load(at)));
}

/** sum += f^T rows and sumOnes += f^T ones, for the 64 rows of a tile (f [64, mp] in p.tkf or p.tqf; rows in panels). */
export function addToSum(p: Plan, f: usize, panels: usize, ones: usize): void {
  const fRow = <usize>p.mp << 2;
  for (let c = 0, to = p.sum; c < p.Vp; c += 8, to += fRow << 3, panels += TILE_PANEL)
    panelUpdate(f, fRow, panels, TILE, to, to, p.mp, 0, 0, 0, 0);
  for (let c: usize = 0; c < fRow; c += 16) {
    let sum = v128.load(p.sumOnes + c);
    for (let i: usize = 0; i < <usize>TILE; i++) sum = madd(v128.load_splat<f32>(ones + (i << 2)), v128.load(f + i * fRow + c), sum);
    v128.store(p.sumOnes + c, sum);
  }
}

/** Adds keys `from` to `to` of the order of time (at most 64) to the sum. */
export function sumKeys(p: Plan, from: i32, to: i32): void {
  inOrder(p.keyIndex, p.slots + from, to - from);
  readKeys(p);
  toWeights(p, p.ta, p.tv);
  asPanels(p.tv, p.Vp, p.vPanels);
  addToSum(p, p.tkf, p.vPanels, p.ta);
}

/**
 * The scale of the sum rises to those of the 64 rows of a tile; each becomes exp(scale - that of the sum), and its row [Vp] is multiplied by it. A
 * row without a number has the lowest scale, so its weight is 0.
 */
export function toWeights(p: Plan, scales: usize, rows: usize): void {
  let scale = p.sumScale;
  for (let at = scales; at < scales + 256; at += 4) if (load<f32>(at) != LOWEST) scale = max(scale, ceil<f32>(load<f32>(at)));
  rescaleSum(p, scale == p.sumScale ? 1 : exp1(p.sumScale - scale), scale);
  for (let at = scales; at < scales + 256; at += 4, rows += <usize>p.Vp << 2) {
    const weight = exp1(load<f32>(at) - scale);
    store<f32>(at, weight);
    scale4(rows, p.Vp, weight);
  }
}

/** x *= factor for `n` floats, a multiple of 4. */
// @ts-ignore: decorator
@inline
export function scale4(x: usize, n: i32, factor: f32): void {
  const f = f32x4.splat(factor);
  for (const end = x + (<usize>n << 2); x < end; x += 16) v128.store(x, f32x4.mul(f, v128.load(x)));
}

/** a . b for n floats, a multiple of 4. */
// @ts-ignore: decorator
@inline
export function dot4(a: usize, b: usize, n: i32): f32 {
  let sum = f32x4.splat(0);
  for (const end = a + (<usize>n << 2); a < end; a += 16, b += 16) sum = madd(v128.load(a), v128.load(b), sum);
  return hsum(sum);
}

