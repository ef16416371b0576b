/** The forward pass of one query (decoding): keys and values are read once, where they lie. */
import { expBelow89, hsum, madd } from '../wasm/lib/math.as';
import { sums4 } from '../wasm/lib/product.as';
import { pad8 } from '../wasm/lib/rows.as';
import { loadN } from '../wasm/lib/tail.as';
import { LOWEST, maxima4, scaleRow, writeLse } from './softmax.as';
import { addTerms, hideKeys, place, SCORES_ROW, Terms } from './terms.as';
import { KEYS, writeRows } from './tiles.as';

/**
 * R heads of one query over the keys from `first`, 64 at a time; sequence n, heads from `head`. Scratch: 64 scores, then per head the
 * maximum, the sum and o [Vp].
 */
export function step(
  x: Terms, n: i32, head: i32, R: i32, query: i32, key: i32, q: usize, k: usize, v: usize, o: usize, lse: usize, rest: usize,
  S: i32, first: i32, keyRow: usize, valueRow: usize, K: i32, V: i32, scale: f32, s: usize,
): void {
  const states = s + SCORES_ROW, state = (<usize>pad8(V) + 4) << 2;
  for (let h = 0, p = states; h < R; h++, p += state) {
    memory.fill(p, 0, state);
    store<f32>(p, LOWEST);
  }
  k += <usize>first * keyRow;
  v += <usize>first * valueRow;
  for (let j = first; j < S; j += KEYS, k += keyRow << 6, v += valueRow << 6) {
    const count = min(KEYS, S - j);
    for (let h: usize = 0, p = states; h < <usize>R; h++, p += state) {
      place(x, n, head + <i32>h, query, key, S - 1);
      if (x.rank) rowScores(x.phiQAt, x.phiKAt + <usize>j * x.phiKRow, x.phiKRow, count, x.rank, 1, false, s);
      rowScores(q + h * (<usize>K << 2), k, keyRow, count, K, scale, x.rank != 0, s);
      addTerms(x, s, 0, j, 1, 0, count, S - 1);
      hideKeys(x, s, j, 1, 0, count);
      softmaxRow(s, count, p, p + 16, <usize>pad8(V) << 2);
      rowOutputs(s, v, valueRow, count, V, p + 16);
    }
  }
  for (let h: usize = 0, p = states; h < <usize>R; h++, p += state) {
    const sum = load<f32>(p, 4);
    store<f32>(p, writeLse(load<f32>(p), sum, lse + (h << 2), rest + (h << 2)));
    writeRows(p + 16, 0, 1, V, o + h * (<usize>V << 2), 0, p, 0);
  }
}

/** scores[j] = [scores[j] +] scale * q . k_j for n keys; -Infinity up to a multiple of 4. */
function rowScores(q: usize, k: usize, stride: usize, n: i32, K: i32, scale: f32, add: bool, scores: usize): void {
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
    let sums = f32x4.mul(f, sums4(a, b, c, d));
    if (add) sums = f32x4.add(sums, v128.load(scores));
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
