/**
 * Softmax attention, forward and backward, tile by tile: the scores of a tile of queries and keys are made, used and forgotten
 * (derivation: README.md). Memory is linear in the number of tokens.
 *
 * A tile is 64 queries by 64 keys, worked on in strips of 4 queries. A strip computes only the columns that one of its queries sees,
 * rounded to 8; tiles that no query sees are never touched.
 *
 * Names: Kp, Vp = K, V padded to multiples of 8. "Panel": 8 columns, 32 bytes a row (wasm/lib/product.as.ts); "key panel": the
 * transpose of 8 keys, [Kp, 8]. Missing rows and columns are 0.
 */
import { expBelow89, hsum, madd } from '../wasm/lib/math.as';
import { panelUpdate, sums4, tileProduct } from '../wasm/lib/product.as';
import { packPanel, packRows, packTransposed, pad8, unpackPanel } from '../wasm/lib/rows.as';
import { log1p4 } from '../wasm/lib/softplus.as';
import { loadN, storeN } from '../wasm/lib/tail.as';

/** Keys in a tile, and bytes of a row of its scores. */
// @ts-ignore: decorator
@inline
const KEYS: i32 = 64;
// @ts-ignore: decorator
@inline
const SCORES_ROW: usize = 256;
/** Queries in a tile. */
// @ts-ignore: decorator
@inline
const QUERIES: i32 = 64;
/** Bytes of a panel of a tile's rows (queries or keys). */
// @ts-ignore: decorator
@inline
const TILE_PANEL: usize = 2048;
/** Where a running maximum starts: finite, so that differences of maxima are never Infinity - Infinity. */
// @ts-ignore: decorator
@inline
const LOWEST: f32 = -3e38;

// ---- What a query sees --------------------------------------------------------------------------------------------------------
// Positions count from the first key of a sequence. `shift` = S - T, the position of its first query; `window` = 0: no window.

/** The first key that query t sees. */
// @ts-ignore: decorator
@inline
function firstKey(t: i32, shift: i32, window: i32): i32 {
  return window ? max(0, t + shift - window + 1) : 0;
}

/** The end of the keys that query t sees. */
// @ts-ignore: decorator
@inline
function endKey(t: i32, S: i32, shift: i32, causal: bool): i32 {
  return causal ? min(S, t + shift + 1) : S;
}

/** The first column of a tile from key j that the strip from query t sees, rounded down to 8; KEYS or more where it sees none. */
// @ts-ignore: decorator
@inline
function firstColumn(t: i32, j: i32, shift: i32, window: i32): i32 {
  return max(0, firstKey(t, shift, window) - j) & ~7;
}

/** The end of those columns, rounded up to 8; 0 or less where it sees none. */
// @ts-ignore: decorator
@inline
function endColumn(t: i32, j: i32, S: i32, shift: i32, causal: bool): i32 {
  return min(KEYS, pad8(endKey(t + 3, S, shift, causal) - j));
}

/** Scores that a query of the strip does not see become -Infinity; returns at once where all see all columns from `col` to `end`. */
function hide(scores: usize, t: i32, j: i32, col: i32, end: i32, S: i32, shift: i32, causal: bool, window: i32): void {
  if (endKey(t, S, shift, causal) >= j + end && firstKey(t + 3, shift, window) <= j + col) return;
  const lowest = f32x4.splat(-Infinity);
  for (let r = 0; r < 4; r++, t++, scores += SCORES_ROW) {
    const first = i32x4.splat(firstKey(t, shift, window) - j), last = i32x4.splat(endKey(t, S, shift, causal) - j - 1);
    let at = i32x4.add(i32x4.splat(col), i32x4(0, 1, 2, 3));
    for (let p = scores + (<usize>col << 2), stop = scores + (<usize>end << 2); p < stop; p += 16) {
      const hidden = v128.or(i32x4.lt_s(at, first), i32x4.gt_s(at, last));
      v128.store(p, v128.bitselect(lowest, v128.load(p), hidden));
      at = i32x4.add(at, i32x4.splat(4));
    }
  }
}

// A bias is found by its first entry for this head and sequence, `biasRow` bytes from query to query; a key mask by the byte of the
// first key, 0 for a key that nobody sees. 0 for the address: there is none.

/** Adds the bias to n rows of scores, of the columns from `col` that are keys. `bias` is that of the first row and column 0. */
function addBias(scores: usize, bias: usize, biasRow: usize, n: i32, col: i32, end: i32): void {
  for (let r = 0; r < n; r++, scores += SCORES_ROW, bias += biasRow)
    for (let c = col; c < end; c += 4) {
      const p = scores + (<usize>c << 2);
      v128.store(p, f32x4.add(v128.load(p), loadN(bias + (<usize>c << 2), end - c)));
    }
}

/** Adds n rows of dS to the gradient of the bias. */
function addBiasGradient(dS: usize, dBias: usize, biasRow: usize, n: i32, col: i32, end: i32): void {
  for (let r = 0; r < n; r++, dS += SCORES_ROW, dBias += biasRow)
    for (let c = col; c < end; c += 4) {
      const p = dBias + (<usize>c << 2);
      storeN(p, f32x4.add(loadN(p, end - c), v128.load(dS + (<usize>c << 2))), end - c);
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
function hideKeys(scores: usize, mask: usize, n: i32, col: i32, end: i32): void {
  const lowest = f32x4.splat(-Infinity);
  for (let c = col; c < end; c += 4) {
    const hidden = hidden4(mask + <usize>c, end - c);
    if (!v128.any_true(hidden)) continue;
    let p = scores + (<usize>c << 2);
    for (let r = 0; r < n; r++, p += SCORES_ROW) v128.store(p, v128.bitselect(lowest, v128.load(p), hidden));
  }
}

// ---- Packing ------------------------------------------------------------------------------------------------------------------

/** A tile of keys (or values) as key panels, one after another. */
function packKeyPanels(src: usize, stride: usize, n: i32, width: i32, dst: usize): void {
  for (let r = 0; r < n; r += 8, src += stride << 3, dst += <usize>pad8(width) << 5)
    packTransposed(src, stride, min(8, n - r), width, dst);
}

/** A tile of `n` rows as panels of 64 rows. */
function packTile(src: usize, stride: usize, n: i32, width: i32, dst: usize): void {
  for (let col = 0; col < width; col += 8, dst += TILE_PANEL) packPanel(src, stride, n, width, col, dst, KEYS);
}

/** dst[r] = factor[r] * src[r] for n rows of `width` floats from packed rows. */
function writeRows(src: usize, n: i32, width: i32, dst: usize, stride: usize, factors: usize, factorStride: usize): void {
  const row = <usize>pad8(width) << 2, full = <usize>(width & ~3) << 2, tail = width & 3;
  for (let r = 0; r < n; r++, src += row, dst += stride, factors += factorStride) {
    const f = v128.load_splat<f32>(factors);
    let p: usize = 0;
    for (; p < full; p += 16) v128.store(dst + p, f32x4.mul(f, v128.load(src + p)));
    if (tail) storeN(dst + p, f32x4.mul(f, v128.load(src + p)), tail);
  }
}

// ---- Products of a strip of 4 queries -----------------------------------------------------------------------------------------

/** scores[4, col..end] = rows times the key panels of a tile. */
// @ts-ignore: decorator
@inline
function stripScores(rows: usize, padded: i32, keys: usize, col: i32, end: i32, scores: usize): void {
  const row = <usize>padded << 2;
  for (let c = col; c < end; c += 8)
    tileProduct(rows, row, keys + <usize>c * row, padded, 0, 0, 0, 0, scores + (<usize>c << 2), SCORES_ROW, false);
}

/** out[4, padded] += weights[4, col..end] times the rows of a tile in panels. */
// @ts-ignore: decorator
@inline
function stripOutputs(weights: usize, panels: usize, col: i32, end: i32, out: usize, padded: i32): void {
  const at = weights + (<usize>col << 2), row = <usize>padded << 2;
  panels += <usize>col << 5;
  for (let c = 0; c < padded; c += 8, panels += TILE_PANEL, out += 32)
    tileProduct(at, SCORES_ROW, panels, end - col, 0, 0, 0, 0, out, row, true);
}

// ---- Forward ------------------------------------------------------------------------------------------------------------------
// State of a strip: running maxima [4], running sums [4].

/** The largest lanes of four vectors, as one vector. */
// @ts-ignore: decorator
@inline
function maxima4(a: v128, b: v128, c: v128, d: v128): v128 {
  const ab = f32x4.max(v128.shuffle<f32>(a, b, 0, 4, 1, 5), v128.shuffle<f32>(a, b, 2, 6, 3, 7));
  const cd = f32x4.max(v128.shuffle<f32>(c, d, 0, 4, 1, 5), v128.shuffle<f32>(c, d, 2, 6, 3, 7));
  return f32x4.max(v128.shuffle<f32>(ab, cd, 0, 1, 4, 5), v128.shuffle<f32>(ab, cd, 2, 3, 6, 7));
}

/** Scores become exp(score - maximum); the state takes them in, and what was summed under an older maximum is scaled down. */
function softmaxStrip(scores: usize, col: i32, end: i32, state: usize, out: usize, row: usize): void {
  const first = scores + (<usize>col << 2), stop = scores + (<usize>end << 2);
  const lowest = f32x4.splat(-Infinity), zero = f32x4.splat(0);
  let a = lowest, b = lowest, c = lowest, d = lowest;
  for (let p = first; p < stop; p += 16) {
    a = f32x4.max(a, v128.load(p));
    b = f32x4.max(b, v128.load(p, SCORES_ROW));
    c = f32x4.max(c, v128.load(p, 2 * SCORES_ROW));
    d = f32x4.max(d, v128.load(p, 3 * SCORES_ROW));
  }
  const before = v128.load(state), largest = f32x4.max(before, maxima4(a, b, c, d));
  const kept = expBelow89(f32x4.sub(before, largest));
  const m0 = v128.shuffle<f32>(largest, largest, 0, 0, 0, 0), m1 = v128.shuffle<f32>(largest, largest, 1, 1, 1, 1);
  const m2 = v128.shuffle<f32>(largest, largest, 2, 2, 2, 2), m3 = v128.shuffle<f32>(largest, largest, 3, 3, 3, 3);
  a = b = c = d = zero;
  for (let p = first; p < stop; p += 16) {
    const w = expBelow89(f32x4.sub(v128.load(p), m0)), x = expBelow89(f32x4.sub(v128.load(p, SCORES_ROW), m1));
    v128.store(p, w);
    v128.store(p, x, SCORES_ROW);
    a = f32x4.add(a, w);
    b = f32x4.add(b, x);
    const y = expBelow89(f32x4.sub(v128.load(p, 2 * SCORES_ROW), m2));
    const z = expBelow89(f32x4.sub(v128.load(p, 3 * SCORES_ROW), m3));
    v128.store(p, y, 2 * SCORES_ROW);
    v128.store(p, z, 3 * SCORES_ROW);
    c = f32x4.add(c, y);
    d = f32x4.add(d, z);
  }
  v128.store(state, largest);
  v128.store(state, madd(v128.load(state, 16), kept, sums4(a, b, c, d)), 16);
  if (!v128.any_true(f32x4.ne(kept, f32x4.splat(1)))) return;
  scaleRow(out, row, f32x4.extract_lane(kept, 0));
  scaleRow(out + row, row, f32x4.extract_lane(kept, 1));
  scaleRow(out + 2 * row, row, f32x4.extract_lane(kept, 2));
  scaleRow(out + 3 * row, row, f32x4.extract_lane(kept, 3));
}

// @ts-ignore: decorator
@inline
function scaleRow(out: usize, row: usize, factor: f32): void {
  const f = f32x4.splat(factor);
  for (const end = out + row; out < end; out += 16) v128.store(out, f32x4.mul(f, v128.load(out)));
}

/** log(x) for finite x >= 1: x = 2^e f with f in [1, 2). */
function logAbove1(x: f32): f32 {
  const bits = reinterpret<i32>(x), e = (bits >> 23) - 127;
  const f = reinterpret<f32>((bits & 0x007fffff) | 0x3f800000);
  const log = f32x4.extract_lane(log1p4(f32x4.splat(f - 1)), 0);
  return <f32>(<f64>e * 0.6931471805599453 + <f64>log);
}

/**
 * lse = maximum + log(sum), and what rounding took from it: their sum is exact to about 1e-7, however large the maximum. -Infinity for a
 * query that saw no key. Returns what its outputs are to be multiplied by: 1 / sum, or 0.
 */
// @ts-ignore: decorator
@inline
function writeLse(largest: f32, sum: f32, lse: usize, rest: usize): f32 {
  if (sum == 0) {
    store<f32>(lse, -Infinity);
    store<f32>(rest, 0);
    return 0;
  }
  const exact = <f64>largest + (sum < Infinity ? <f64>logAbove1(sum) : <f64>sum), rounded = <f32>exact;
  store<f32>(lse, rounded);
  store<f32>(rest, <f32>(exact - <f64>rounded));
  return 1 / sum;
}

/** Bytes of scratch of flashAttentionFwd; S is the largest number of keys of a sequence, R = H / G. */
export function flashAttentionFwdScratch(S: i32, R: i32, K: i32, V: i32): usize {
  const Kp = <usize>pad8(K), Vp = <usize>pad8(V), tiles = <usize>((S + KEYS - 1) / KEYS);
  const whole = stripAt(0, <i32>Kp, <i32>Vp) + 4 * SCORES_ROW + tiles * <usize>KEYS * ((Kp + Vp) << 2);
  return max(whole, SCORES_ROW + <usize>R * ((Vp + 4) << 2));
}

// Scratch of a tile of queries: rows [64, Kp], outputs [64, Vp], states of 16 strips, scores of a strip; then the tiles of keys.
// @ts-ignore: decorator
@inline
function outputsAt(s: usize, Kp: i32): usize { return s + (<usize>Kp << 8); }
// @ts-ignore: decorator
@inline
function statesAt(s: usize, Kp: i32, Vp: i32): usize { return outputsAt(s, Kp) + (<usize>Vp << 8); }
// @ts-ignore: decorator
@inline
function stripAt(s: usize, Kp: i32, Vp: i32): usize { return statesAt(s, Kp, Vp) + 512; }
// @ts-ignore: decorator
@inline
function keyTilesAt(s: usize, Kp: i32, Vp: i32): usize { return stripAt(s, Kp, Vp) + 4 * SCORES_ROW; }

/**
 * q [*, H, K], k [*, G, K], v [*, G, V], o [*, H, V], lse and rest [*, H], where * counts tokens: sequence n is the queries offsets[n]
 * to offsets[n + 1] and the keys keyOffsets[n] to keyOffsets[n + 1]. `rest` is what rounding took from lse. `bias` is added to the scaled
 * scores: its sequences, heads and queries are biasBatch, biasHead and biasRow bytes apart (0 where they share it); of `packed` sequences
 * it has the rows and columns of all. `mask` has a byte for each key. Both may be 0.
 */
export function flashAttentionFwd(
  q: usize, k: usize, v: usize, o: usize, lse: usize, rest: usize, offsets: usize, keyOffsets: usize,
  N: i32, H: i32, G: i32, K: i32, V: i32, causal: bool, window: i32, scale: f32,
  bias: usize, biasBatch: usize, biasHead: usize, biasRow: usize, packed: bool, mask: usize, s: usize,
): void {
  const R = H / G, keyRow = <usize>(G * K) << 2, valueRow = <usize>(G * V) << 2;
  for (let n = 0; n < N; n++, offsets += 4, keyOffsets += 4) {
    const T = load<i32>(offsets, 4) - load<i32>(offsets), S = load<i32>(keyOffsets, 4) - load<i32>(keyOffsets);
    for (let g = 0; g < G; g++) {
      const at = <usize>load<i32>(offsets) * <usize>H + <usize>(g * R), keys = <usize>load<i32>(keyOffsets) * <usize>G + <usize>g;
      const qg = q + at * (<usize>K << 2), og = o + at * (<usize>V << 2), lg = lse + (at << 2), eg = rest + (at << 2);
      const kg = k + keys * (<usize>K << 2), vg = v + keys * (<usize>V << 2);
      const bg = biasAt(bias, n, g * R, offsets, keyOffsets, biasBatch, biasHead, biasRow, packed);
      const mg = mask ? mask + <usize>load<i32>(keyOffsets) : 0;
      if (T == 1) {
        const first = <usize>firstKey(0, S - 1, window);
        step(
          qg, kg + first * keyRow, vg + first * valueRow, og, lg, eg, S - <i32>first, R, keyRow, valueRow, K, V, scale,
          bg ? bg + (first << 2) : 0, biasHead, mg ? mg + first : 0, s,
        );
        continue;
      }
      packKeyTiles(kg, vg, S, keyRow, valueRow, K, V, keyTilesAt(s, pad8(K), pad8(V)));
      for (let h: usize = 0; h < <usize>R; h++) {
        const key = h * (<usize>K << 2), value = h * (<usize>V << 2), one = h << 2;
        headFwd(
          qg + key, og + value, lg + one, eg + one, T, S, H, K, V, causal, window, scale, bg ? bg + h * biasHead : 0, biasRow, mg, s,
        );
      }
    }
  }
}

/** The bias of sequence n and head h: its first query and key. */
function biasAt(
  bias: usize, n: i32, h: i32, offsets: usize, keyOffsets: usize, biasBatch: usize, biasHead: usize, biasRow: usize, packed: bool,
): usize {
  if (!bias) return 0;
  const head = bias + <usize>n * biasBatch + <usize>h * biasHead;
  return packed ? head + <usize>load<i32>(offsets) * biasRow + (<usize>load<i32>(keyOffsets) << 2) : head;
}

/** For every tile of keys: its key panels, then its values in panels. */
function packKeyTiles(k: usize, v: usize, S: i32, keyRow: usize, valueRow: usize, K: i32, V: i32, dst: usize): void {
  const keys = <usize>pad8(K) << 8, values = <usize>pad8(V) << 8;
  for (let j = 0; j < S; j += KEYS, k += keyRow << 6, v += valueRow << 6, dst += keys + values) {
    packKeyPanels(k, keyRow, min(KEYS, S - j), K, dst);
    packTile(v, valueRow, min(KEYS, S - j), V, dst + keys);
  }
}

/** All queries of one head. */
function headFwd(
  q: usize, o: usize, lse: usize, rest: usize, T: i32, S: i32, H: i32, K: i32, V: i32,
  causal: bool, window: i32, scale: f32, bias: usize, biasRow: usize, mask: usize, s: usize,
): void {
  const Kp = pad8(K), Vp = pad8(V), outputs = outputsAt(s, Kp), states = statesAt(s, Kp, Vp);
  const queryRow = <usize>(H * K) << 2, outputRow = <usize>(H * V) << 2, lseRow = <usize>H << 2;
  for (let t = 0; t < T; t += QUERIES) {
    const n = min(QUERIES, T - t);
    packRows(q, queryRow, n, K, s, QUERIES, scale);
    memory.fill(outputs, 0, <usize>Vp << 8);
    for (let p = states; p < states + 512; p += 32) {
      v128.store(p, f32x4.splat(LOWEST));
      v128.store(p, f32x4.splat(0), 16);
    }
    tileFwd(t, n, T, S, Kp, Vp, causal, window, bias ? bias + <usize>t * biasRow : 0, biasRow, mask, s);
    for (let r = 0; r < n; r++, lse += lseRow, rest += lseRow) {
      const state = states + (<usize>(r >> 2) << 5) + (<usize>(r & 3) << 2), sum = load<f32>(state, 16);
      store<f32>(state, writeLse(load<f32>(state), sum, lse, rest));
    }
    for (let r = 0; r < n; r += 4)
      writeRows(
        outputs + <usize>r * (<usize>Vp << 2), min(4, n - r), V, o + <usize>r * outputRow, outputRow,
        states + (<usize>r << 3), 4,
      );
    q += queryRow << 6;
    o += outputRow << 6;
  }
}

/** A tile of n queries from query t against all tiles of keys that it sees. */
function tileFwd(
  t: i32, n: i32, T: i32, S: i32, Kp: i32, Vp: i32, causal: bool, window: i32, bias: usize, biasRow: usize, mask: usize, s: usize,
): void {
  const shift = S - T, strip = stripAt(s, Kp, Vp), outputs = outputsAt(s, Kp), states = statesAt(s, Kp, Vp);
  const queryStrip = <usize>Kp << 4, outputStrip = <usize>Vp << 4, keys = <usize>Kp << 8, tile = keys + (<usize>Vp << 8);
  const first = firstKey(t, shift, window) & ~(KEYS - 1), last = endKey(t + n - 1, S, shift, causal);
  for (let j = first; j < last; j += KEYS) {
    const at = keyTilesAt(s, Kp, Vp) + <usize>(j / KEYS) * tile;
    for (let r = 0; r < n; r += 4) {
      const i = <usize>(r >> 2), col = firstColumn(t + r, j, shift, window), end = endColumn(t + r, j, S, shift, causal);
      if (col >= end) continue;
      const out = outputs + i * outputStrip;
      stripScores(s + i * queryStrip, Kp, at, col, end, strip);
      if (bias) addBias(strip, bias + <usize>r * biasRow + (<usize>j << 2), biasRow, min(4, n - r), col, min(end, S - j));
      hide(strip, t + r, j, col, end, S, shift, causal, window);
      if (mask) hideKeys(strip, mask + <usize>j, 4, col, min(end, S - j));
      softmaxStrip(strip, col, end, states + (i << 5), out, <usize>Vp << 2);
      stripOutputs(strip, at + keys, col, end, out, Vp);
    }
  }
}

// ---- Forward, one query: keys and values are read once, where they lie -------------------------------------------------------------

/** R heads of one query over S keys, 64 at a time. Scratch: 64 scores, then per head the maximum, the sum and o [Vp]. */
function step(
  q: usize, k: usize, v: usize, o: usize, lse: usize, rest: usize, S: i32, R: i32, keyRow: usize, valueRow: usize,
  K: i32, V: i32, scale: f32, bias: usize, biasHead: usize, mask: usize, s: usize,
): void {
  const states = s + SCORES_ROW, state = (<usize>pad8(V) + 4) << 2;
  for (let h = 0, p = states; h < R; h++, p += state) {
    memory.fill(p, 0, state);
    store<f32>(p, LOWEST);
  }
  for (let j = 0; j < S; j += KEYS, k += keyRow << 6, v += valueRow << 6) {
    const n = min(KEYS, S - j);
    for (let h: usize = 0, p = states; h < <usize>R; h++, p += state) {
      rowScores(q + h * (<usize>K << 2), k, keyRow, n, K, scale, s);
      if (bias) addBias(s, bias + h * biasHead + (<usize>j << 2), 0, 1, 0, n);
      if (mask) hideKeys(s, mask + <usize>j, 1, 0, n);
      softmaxRow(s, n, p, p + 16, <usize>pad8(V) << 2);
      rowOutputs(s, v, valueRow, n, V, p + 16);
    }
  }
  for (let h: usize = 0, p = states; h < <usize>R; h++, p += state) {
    const sum = load<f32>(p, 4);
    store<f32>(p, writeLse(load<f32>(p), sum, lse + (h << 2), rest + (h << 2)));
    writeRows(p + 16, 1, V, o + h * (<usize>V << 2), 0, p, 0);
  }
}

/** scores[j] = scale * q . k_j for n keys; -Infinity up to a multiple of 4. */
function rowScores(q: usize, k: usize, stride: usize, n: i32, K: i32, scale: f32, scores: usize): void {
  const full = <usize>(K & ~3) << 2, tail = K & 3, f = f32x4.splat(scale);
  for (let j = 0; j < n; j += 4, k += stride << 2, scores += 16) {
    const left = n - j; // missing keys: the first one again
    const k1 = left > 1 ? k + stride : k, k2 = left > 2 ? k + 2 * stride : k, k3 = left > 3 ? k + 3 * stride : k;
    let a = f32x4.splat(0), b = a, c = a, d = a, p: usize = 0;
    for (; p < full; p += 16) {
      const x = v128.load(q + p);
      a = madd(x, v128.load(k + p), a);
      b = madd(x, v128.load(k1 + p), b);
      c = madd(x, v128.load(k2 + p), c);
      d = madd(x, v128.load(k3 + p), d);
    }
    if (tail) {
      const x = loadN(q + p, tail);
      a = madd(x, loadN(k + p, tail), a);
      b = madd(x, loadN(k1 + p, tail), b);
      c = madd(x, loadN(k2 + p, tail), c);
      d = madd(x, loadN(k3 + p, tail), d);
    }
    const sums = f32x4.mul(f, sums4(a, b, c, d));
    v128.store(scores, left > 3 ? sums : v128.bitselect(sums, f32x4.splat(-Infinity), i32x4.lt_s(i32x4(0, 1, 2, 3), i32x4.splat(left))));
  }
}

/** softmaxStrip for one row; state: maximum, sum. */
function softmaxRow(scores: usize, n: i32, state: usize, out: usize, row: usize): void {
  const stop = scores + (<usize>n << 2);
  let a = f32x4.splat(load<f32>(state));
  for (let p = scores; p < stop; p += 16) a = f32x4.max(a, v128.load(p));
  const largest = maxima4(a, a, a, a), before = load<f32>(state);
  const kept = f32x4.extract_lane(expBelow89(f32x4.sub(f32x4.splat(before), largest)), 0);
  a = f32x4.splat(0);
  for (let p = scores; p < stop; p += 16) {
    const x = expBelow89(f32x4.sub(v128.load(p), largest));
    v128.store(p, x);
    a = f32x4.add(a, x);
  }
  store<f32>(state, f32x4.extract_lane(largest, 0));
  store<f32>(state, load<f32>(state, 4) * kept + hsum(a), 4);
  if (kept != 1) scaleRow(out, row, kept);
}

/** out += weights times n values, 16 columns at a time. */
function rowOutputs(weights: usize, v: usize, stride: usize, n: i32, V: i32, out: usize): void {
  const stop = weights + (<usize>n << 2);
  let col = 0;
  for (; col + 16 <= V; col += 16, v += 64, out += 64) {
    let a = v128.load(out), b = v128.load(out, 16), c = v128.load(out, 32), d = v128.load(out, 48);
    for (let w = weights, p = v; w < stop; w += 4, p += stride) {
      const x = v128.load_splat<f32>(w);
      a = madd(x, v128.load(p), a);
      b = madd(x, v128.load(p, 16), b);
      c = madd(x, v128.load(p, 32), c);
      d = madd(x, v128.load(p, 48), d);
    }
    v128.store(out, a);
    v128.store(out, b, 16);
    v128.store(out, c, 32);
    v128.store(out, d, 48);
  }
  for (; col < V; col += 4, v += 16, out += 16) {
    let a = v128.load(out);
    for (let w = weights, p = v; w < stop; w += 4, p += stride) a = madd(v128.load_splat<f32>(w), loadN(p, V - col), a);
    v128.store(out, a);
  }
}

// ---- Backward -----------------------------------------------------------------------------------------------------------------
// Scratch: weights P and their gradients dS of a tile [64, 64] | a tile of keys: key panels of k and of v, panels of k | of one head,
// in tiles of 64 queries: rows of q and dO, panels of q and dO, dq in rows, statistics | of the key head, in tiles: dk, dv in panels.
// Statistics of a query: lse, rest, and delta = dO . o - dLse.

// @ts-ignore: decorator
@inline
const SQUARE: usize = 16384;
// @ts-ignore: decorator
@inline
function gradientsAt(s: usize): usize { return s + SQUARE; }
// @ts-ignore: decorator
@inline
function keyPanelsAt(s: usize): usize { return s + 2 * SQUARE; }
// @ts-ignore: decorator
@inline
function valuePanelsAt(s: usize, Kp: i32): usize { return keyPanelsAt(s) + (<usize>Kp << 8); }
// @ts-ignore: decorator
@inline
function keysAt(s: usize, Kp: i32, Vp: i32): usize { return valuePanelsAt(s, Kp) + (<usize>Vp << 8); }
// @ts-ignore: decorator
@inline
function queryTilesAt(s: usize, Kp: i32, Vp: i32): usize { return keysAt(s, Kp, Vp) + (<usize>Kp << 8); }
/** Bytes of a tile of queries. */
// @ts-ignore: decorator
@inline
function queryTile(Kp: i32, Vp: i32): usize { return (<usize>(3 * Kp + 2 * Vp) << 8) + 3 * 256; }
// @ts-ignore: decorator
@inline
function upstreamRowsAt(tile: usize, Kp: i32): usize { return tile + (<usize>Kp << 8); }
// @ts-ignore: decorator
@inline
function queryPanelsAt(tile: usize, Kp: i32, Vp: i32): usize { return upstreamRowsAt(tile, Kp) + (<usize>Vp << 8); }
// @ts-ignore: decorator
@inline
function upstreamPanelsAt(tile: usize, Kp: i32, Vp: i32): usize { return queryPanelsAt(tile, Kp, Vp) + (<usize>Kp << 8); }
// @ts-ignore: decorator
@inline
function queryGradientsAt(tile: usize, Kp: i32, Vp: i32): usize { return upstreamPanelsAt(tile, Kp, Vp) + (<usize>Vp << 8); }
// @ts-ignore: decorator
@inline
function statisticsAt(tile: usize, Kp: i32, Vp: i32): usize { return queryGradientsAt(tile, Kp, Vp) + (<usize>Kp << 8); }
// @ts-ignore: decorator
@inline
function keyGradientsAt(s: usize, T: i32, Kp: i32, Vp: i32): usize {
  return queryTilesAt(s, Kp, Vp) + <usize>((T + QUERIES - 1) / QUERIES) * queryTile(Kp, Vp);
}

/** Bytes of scratch of flashAttentionBwd; T and S are the largest numbers of queries and keys of a sequence. */
export function flashAttentionBwdScratch(T: i32, S: i32, K: i32, V: i32): usize {
  const Kp = pad8(K), Vp = pad8(V);
  return keyGradientsAt(0, T, Kp, Vp) + <usize>((S + KEYS - 1) / KEYS) * (<usize>(Kp + Vp) << 8);
}

/** Gradients of sum(o * dO) + sum(lse * dLse); tensors as in flashAttentionFwd. dBias, which may be 0, is added to. */
export function flashAttentionBwd(
  q: usize, k: usize, v: usize, o: usize, lse: usize, rest: usize, dO: usize, dLse: usize, dq: usize, dk: usize, dv: usize,
  offsets: usize, keyOffsets: usize, N: i32, H: i32, G: i32, K: i32, V: i32, causal: bool, window: i32, scale: f32,
  bias: usize, biasBatch: usize, biasHead: usize, biasRow: usize, packed: bool, mask: usize, dBias: usize, s: usize,
): void {
  const R = H / G, Kp = pad8(K), Vp = pad8(V), keyRow = <usize>(G * K) << 2, valueRow = <usize>(G * V) << 2;
  for (let n = 0; n < N; n++, offsets += 4, keyOffsets += 4) {
    const T = load<i32>(offsets, 4) - load<i32>(offsets), S = load<i32>(keyOffsets, 4) - load<i32>(keyOffsets);
    const sums = keyGradientsAt(s, T, Kp, Vp), tile = <usize>(Kp + Vp) << 8, tiles = <usize>((S + KEYS - 1) / KEYS);
    for (let g = 0; g < G; g++) {
      const keys = <usize>load<i32>(keyOffsets) * <usize>G + <usize>g, keyAt = keys * (<usize>K << 2), valueAt = keys * (<usize>V << 2);
      memory.fill(sums, 0, tiles * tile);
      for (let h = g * R; h < (g + 1) * R; h++) {
        const at = <usize>load<i32>(offsets) * <usize>H + <usize>h, key = at * (<usize>K << 2), value = at * (<usize>V << 2), one = at << 2;
        packQueryTiles(q + key, o + value, dO + value, lse + one, rest + one, dLse + one, T, H, K, V, scale, queryTilesAt(s, Kp, Vp));
        headBwd(
          k + keyAt, v + valueAt, keyRow, valueRow, T, S, K, V, causal, window,
          biasAt(bias, n, h, offsets, keyOffsets, biasBatch, biasHead, biasRow, packed),
          biasAt(dBias, n, h, offsets, keyOffsets, biasBatch, biasHead, biasRow, packed),
          biasRow, mask ? mask + <usize>load<i32>(keyOffsets) : 0, sums, s,
        );
        writeQueryGradients(dq + key, T, H, K, V, scale, s);
      }
      writeKeyGradients(dk + keyAt, dv + valueAt, keyRow, valueRow, S, K, V, sums);
    }
  }
}

function packQueryTiles(
  q: usize, o: usize, dO: usize, lse: usize, rest: usize, dLse: usize, T: i32, H: i32, K: i32, V: i32, scale: f32, tile: usize,
): void {
  const Kp = pad8(K), Vp = pad8(V), queryRow = <usize>(H * K) << 2, outputRow = <usize>(H * V) << 2, one = <usize>H << 2;
  for (let t = 0; t < T; t += QUERIES, tile += queryTile(Kp, Vp)) {
    const n = min(QUERIES, T - t), upstream = upstreamRowsAt(tile, Kp), statistics = statisticsAt(tile, Kp, Vp);
    packRows(q, queryRow, n, K, tile, QUERIES, scale);
    packRows(dO, outputRow, n, V, upstream, QUERIES, 1);
    packTile(tile, <usize>Kp << 2, QUERIES, Kp, queryPanelsAt(tile, Kp, Vp));
    packTile(upstream, <usize>Vp << 2, QUERIES, Vp, upstreamPanelsAt(tile, Kp, Vp));
    memory.fill(queryGradientsAt(tile, Kp, Vp), 0, <usize>Kp << 8);
    for (let r = 0; r < QUERIES; r++) {
      const to = statistics + (<usize>r << 2), real = r < n;
      store<f32>(to, real && load<f32>(lse) != -Infinity ? load<f32>(lse) : Infinity); // no query, no key: weights exp(-Infinity) = 0
      store<f32>(to, real ? load<f32>(rest) : 0, 256);
      store<f32>(to, real ? dot(o, dO, V) - load<f32>(dLse) : 0, 512);
      if (!real) continue;
      o += outputRow;
      dO += outputRow;
      lse += one;
      rest += one;
      dLse += one;
    }
    q += queryRow << 6;
  }
}

function dot(a: usize, b: usize, n: i32): f32 {
  const full = <usize>(n & ~3) << 2;
  let sum = f32x4.splat(0), p: usize = 0;
  for (; p < full; p += 16) sum = madd(v128.load(a + p), v128.load(b + p), sum);
  if (n & 3) sum = madd(loadN(a + p, n & 3), loadN(b + p, n & 3), sum);
  return hsum(sum);
}

/** All tiles of one head: adds to dq in its tiles of queries, and to the sums of dk and dv. */
function headBwd(
  k: usize, v: usize, keyRow: usize, valueRow: usize, T: i32, S: i32, K: i32, V: i32, causal: bool, window: i32,
  bias: usize, dBias: usize, biasRow: usize, mask: usize, sums: usize, s: usize,
): void {
  const Kp = pad8(K), Vp = pad8(V), shift = S - T, size = queryTile(Kp, Vp);
  for (let j = 0; j < S; j += KEYS, k += keyRow << 6, v += valueRow << 6, sums += <usize>(Kp + Vp) << 8) {
    const n = min(KEYS, S - j);
    packKeyPanels(k, keyRow, n, K, keyPanelsAt(s));
    packKeyPanels(v, valueRow, n, V, valuePanelsAt(s, Kp));
    packTile(k, keyRow, n, K, keysAt(s, Kp, Vp));
    let tile = queryTilesAt(s, Kp, Vp);
    for (let t = 0; t < T; t += QUERIES, tile += size) {
      const last = min(t + QUERIES, T) - 1;
      if (endKey(last, S, shift, causal) <= j || firstKey(t, shift, window) >= j + KEYS) continue;
      const at = <usize>t * biasRow + (<usize>j << 2);
      tileBwd(
        tile, t, j, last + 1 - t, S, shift, Kp, Vp, causal, window, bias ? bias + at : 0, dBias ? dBias + at : 0, biasRow,
        mask ? mask + <usize>j : 0, s,
      );
      keysBwd(tile, t, j, last + 1 - t, n, S, shift, Kp, Vp, causal, window, sums, s);
    }
  }
}

/** P and dS of a tile of n queries, and what it adds to dq. */
function tileBwd(
  tile: usize, t: i32, j: i32, n: i32, S: i32, shift: i32, Kp: i32, Vp: i32, causal: bool, window: i32,
  bias: usize, dBias: usize, biasRow: usize, mask: usize, s: usize,
): void {
  const upstream = upstreamRowsAt(tile, Kp), dq = queryGradientsAt(tile, Kp, Vp), statistics = statisticsAt(tile, Kp, Vp);
  for (let r = 0; r < n; r += 4) {
    const i = <usize>r, col = firstColumn(t + r, j, shift, window), end = endColumn(t + r, j, S, shift, causal);
    if (col >= end) continue;
    const P = s + i * SCORES_ROW, dS = gradientsAt(s) + i * SCORES_ROW;
    stripScores(tile + i * (<usize>Kp << 2), Kp, keyPanelsAt(s), col, end, P);
    if (bias) addBias(P, bias + i * biasRow, biasRow, min(4, n - r), col, min(end, S - j));
    hide(P, t + r, j, col, end, S, shift, causal, window);
    if (mask) hideKeys(P, mask, 4, col, min(end, S - j));
    stripScores(upstream + i * (<usize>Vp << 2), Vp, valuePanelsAt(s, Kp), col, end, dS);
    weightsBwd(P, dS, col, end, statistics + (i << 2));
    if (dBias) addBiasGradient(dS, dBias + i * biasRow, biasRow, min(4, n - r), col, min(end, S - j));
    stripOutputs(dS, keysAt(s, Kp, Vp), col, end, dq + i * (<usize>Kp << 2), Kp);
  }
}

/** P = exp(score - lse) and dS = P (dP - delta) in place, for a strip. */
function weightsBwd(P: usize, dS: usize, col: i32, end: i32, statistics: usize): void {
  const first = <usize>col << 2, stop = <usize>end << 2;
  for (const last = statistics + 16; statistics < last; statistics += 4, P += SCORES_ROW, dS += SCORES_ROW) {
    const lse = v128.load_splat<f32>(statistics), rest = v128.load_splat<f32>(statistics, 256);
    const delta = v128.load_splat<f32>(statistics, 512);
    for (let c = first; c < stop; c += 16) {
      const p = expBelow89(f32x4.sub(f32x4.sub(v128.load(P + c), lse), rest));
      v128.store(P + c, p);
      v128.store(dS + c, f32x4.mul(p, f32x4.sub(v128.load(dS + c), delta)));
    }
  }
}

/** dv += P^T dO and dk += dS^T q for n keys, 8 at a time, over the strips that see one of them. */
function keysBwd(
  tile: usize, t: i32, j: i32, queries: i32, n: i32, S: i32, shift: i32, Kp: i32, Vp: i32, causal: bool, window: i32,
  sums: usize, s: usize,
): void {
  const q = queryPanelsAt(tile, Kp, Vp), upstream = upstreamPanelsAt(tile, Kp, Vp), values = sums + (<usize>Kp << 8);
  for (let c = 0; c < n; c += 8) {
    let r = 0, stop = (queries + 3) & ~3;
    while (r < stop && endColumn(t + r, j, S, shift, causal) <= c) r += 4;
    while (r < stop && firstColumn(t + stop - 4, j, shift, window) > c) stop -= 4;
    const at = <usize>r * SCORES_ROW + (<usize>c << 2), row = <usize>r << 5, key = <usize>c << 5;
    columnUpdate(s + at, upstream + row, stop - r, values + key, Vp);
    columnUpdate(gradientsAt(s) + at, q + row, stop - r, sums + key, Kp);
  }
}

/** 8 rows of the sums, in panels, += weights^T times `rows` rows in panels. */
// @ts-ignore: decorator
@inline
function columnUpdate(weights: usize, panels: usize, rows: i32, sums: usize, padded: i32): void {
  for (let col = 0; col < padded; col += 8, panels += TILE_PANEL, sums += TILE_PANEL)
    panelUpdate(weights, SCORES_ROW, panels, rows, sums, sums, 8, 0, 0, 0, 0);
}

function writeQueryGradients(dq: usize, T: i32, H: i32, K: i32, V: i32, scale: f32, s: usize): void {
  const Kp = pad8(K), Vp = pad8(V), row = <usize>(H * K) << 2;
  store<f32>(s, scale);
  let tile = queryTilesAt(s, Kp, Vp);
  for (let t = 0; t < T; t += QUERIES, tile += queryTile(Kp, Vp), dq += row << 6)
    writeRows(queryGradientsAt(tile, Kp, Vp), min(QUERIES, T - t), K, dq, row, s, 0);
}

function writeKeyGradients(dk: usize, dv: usize, keyRow: usize, valueRow: usize, S: i32, K: i32, V: i32, sums: usize): void {
  for (let j = 0; j < S; j += KEYS, dk += keyRow << 6, dv += valueRow << 6) {
    sums = writePanels(sums, dk, keyRow, min(KEYS, S - j), K);
    sums = writePanels(sums, dv, valueRow, min(KEYS, S - j), V);
  }
}

/** Panels of a tile to n rows; returns where the panels end. */
function writePanels(src: usize, dst: usize, stride: usize, n: i32, width: i32): usize {
  for (let col = 0; col < width; col += 8, src += TILE_PANEL) unpackPanel(src, 32, dst, stride, n, width, col);
  return src;
}
