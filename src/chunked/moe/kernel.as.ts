/**
 * A mixture of experts around its matrix products: which experts a token gets and with what weight, tokens sorted by expert, the gated
 * unit between the products, and the sums back to tokens. Symbols and derivation: README.md.
 *
 * A pair is a token with one of its k experts: pair n * k + j, P = N * k of them. A row is a pair in the order of experts;
 * order[row] is its pair, place[pair] its row.
 */
import { hsum, madd, sigmoid4 } from '../wasm/lib/math.as';
import { sortById } from '../wasm/lib/sort.as';
import { copyRow, loadN, storeN } from '../wasm/lib/tail.as';

/** Added to a sum of scores that is divided by. */
// @ts-ignore: decorator
@inline
const TINY: f32 = 1e-20;

// ---- Routing ------------------------------------------------------------------------------------------------------------------

/** Floats of scratch that `moeRoute` needs. */
export function moeRouteScratch(E: i32, k: i32, groups: i32): i32 {
  return E + max(k, 2) + 2 + 3 * groups;
}

/**
 * For each of N rows of E logits: the k experts with the largest sigmoid(logit) + bias, best first, and their weights. Of equals the
 * lower number is taken. `bias` is 0 for none.
 */
export function moeRoute(
  logits: usize, bias: usize, chosen: usize, weights: usize, N: i32, E: i32, k: i32,
  groups: i32, topGroups: i32, renormalize: bool, factor: f32, scratch: usize,
): void {
  const row = <usize>E << 2, pairs = <usize>k << 2, best = scratch + row;
  const rest = best + (<usize>max(k, 2) << 2);
  for (; N > 0; N--, logits += row, chosen += pairs, weights += pairs) {
    for (let i = 0; i < E; i += 4) {
      const at = <usize>i << 2, lanes = E - i, s = sigmoid4(loadN(logits + at, lanes));
      storeN(scratch + at, bias ? f32x4.add(s, loadN(bias + at, lanes)) : s, lanes);
    }
    if (groups > 1) maskGroups(scratch, E, groups, topGroups, best, rest);
    largest(scratch, E, k, chosen, best);
    weigh(logits, chosen, weights, k, renormalize, factor);
  }
}

/** A NaN goes before all else, so that it shows. */
// @ts-ignore: decorator
@inline
function above(v: f32, other: f32): bool {
  return v > other || v != v;
}

/** Numbers of the k largest of n values, best first, and the values. */
function largest(values: usize, n: i32, k: i32, ids: usize, best: usize): void {
  for (let i = 0, found = 0; i < n; i++, values += 4) {
    const v = load<f32>(values);
    if (found == k && !above(v, load<f32>(best + (<usize>(k - 1) << 2)))) continue;
    let j = found < k ? found++ : k - 1;
    for (; j > 0 && above(v, load<f32>(best + (<usize>(j - 1) << 2))); j--) {
      const at = <usize>j << 2;
      store<f32>(best + at, load<f32>(best + at - 4));
      store<i32>(ids + at, load<i32>(ids + at - 4));
    }
    store<f32>(best + (<usize>j << 2), v);
    store<i32>(ids + (<usize>j << 2), i);
  }
}

/** Scores outside of the `top` groups become 0. The score of a group is the sum of its two largest. */
function maskGroups(scores: usize, E: i32, groups: i32, top: i32, best: usize, scratch: usize): void {
  const size = E / groups, bytes = <usize>size << 2, two = min(2, size);
  const ids = scratch + 8, sums = ids + (<usize>groups << 2), kept = sums + (<usize>groups << 2); // before them ids of two experts
  for (let g = 0; g < groups; g++) {
    largest(scores + <usize>g * bytes, size, two, scratch, best);
    store<f32>(sums + (<usize>g << 2), load<f32>(best) + (two > 1 ? load<f32>(best, 4) : 0));
  }
  largest(sums, groups, top, ids, kept);
  for (let g = 0; g < groups; g++) {
    let keep = false;
    for (let j = 0; j < top; j++) keep = keep || load<i32>(ids + (<usize>j << 2)) == g;
    if (!keep) memory.fill(scores + <usize>g * bytes, 0, bytes);
  }
}

/** w_j = factor * s_j, over the sum of the chosen s with `renormalize`. */
function weigh(logits: usize, chosen: usize, weights: usize, k: i32, renormalize: bool, factor: f32): void {
  let sum: f32 = 0;
  for (let j = 0; j < k; j++) {
    const s = score(logits, chosen, j);
    store<f32>(weights + (<usize>j << 2), s);
    sum += s;
  }
  const scale = renormalize ? factor / (sum + TINY) : factor;
  for (let j = 0; j < k; j++, weights += 4) store<f32>(weights, scale * load<f32>(weights));
}

/** sigmoid of the logit of the j-th chosen expert. */
// @ts-ignore: decorator
@inline
function score(logits: usize, chosen: usize, j: i32): f32 {
  const expert = <usize>load<i32>(chosen + (<usize>j << 2));
  return f32x4.extract_lane(sigmoid4(v128.load32_splat(logits + (expert << 2))), 0);
}

/** dLogits of `moeRoute` for given dWeights [N, k]: nothing flows through the choice. */
export function moeRouteBwd(
  logits: usize, chosen: usize, dWeights: usize, dLogits: usize, N: i32, E: i32, k: i32, renormalize: bool, factor: f32,
): void {
  const row = <usize>E << 2, pairs = <usize>k << 2;
  memory.fill(dLogits, 0, row * <usize>N);
  for (; N > 0; N--, logits += row, dLogits += row, chosen += pairs, dWeights += pairs) {
    let sum: f32 = TINY, dot: f32 = 0;
    for (let j = 0; j < k; j++) {
      const s = score(logits, chosen, j);
      sum += s;
      dot += s * load<f32>(dWeights + (<usize>j << 2));
    }
    for (let j = 0; j < k; j++) {
      const s = score(logits, chosen, j), dw = load<f32>(dWeights + (<usize>j << 2));
      const ds = renormalize ? (factor / sum) * (dw - dot / sum) : factor * dw;
      store<f32>(dLogits + (<usize>load<i32>(chosen + (<usize>j << 2)) << 2), ds * s * (1 - s));
    }
  }
}

// ---- Tokens to rows and back --------------------------------------------------------------------------------------------------

/** Sorts P pairs by their expert: `order` and `place` [P], and ends[e], the row after the last one of expert e ([E + 1] ints). */
export function moeSort(chosen: usize, P: i32, E: i32, ends: usize, order: usize, place: usize): void {
  sortById(chosen, P, E, ends, order);
  for (let row = 0; row < P; row++)
    store<i32>(place + (<usize>load<i32>(order + (<usize>row << 2)) << 2), row);
}

/** rows[r] = x[token of row r], P rows of D floats. */
export function moeGather(x: usize, order: usize, P: i32, k: i32, D: i32, rows: usize): void {
  const stride = <usize>D << 2;
  for (let r = 0; r < P; r++, rows += stride)
    copyRow(x + <usize>(load<i32>(order + (<usize>r << 2)) / k) * stride, rows, D);
}

/** y[n] = sum of the rows of the k pairs of token n, in their order. */
export function moeSum(rows: usize, place: usize, N: i32, k: i32, D: i32, y: usize): void {
  const stride = <usize>D << 2, pairs = <usize>k << 2;
  for (; N > 0; N--, place += pairs, y += stride)
    for (let i = 0; i < D; i += 4) sumCell(rows + (<usize>i << 2), stride, place, k, y + (<usize>i << 2), D - i);
}

// @ts-ignore: decorator
@inline
function sumCell(rows: usize, stride: usize, place: usize, k: i32, y: usize, lanes: i32): void {
  let sum = loadN(rows + <usize>load<i32>(place) * stride, lanes);
  for (let j = 1; j < k; j++)
    sum = f32x4.add(sum, loadN(rows + <usize>load<i32>(place + (<usize>j << 2)) * stride, lanes));
  storeN(y, sum, lanes);
}

// ---- Between the products -----------------------------------------------------------------------------------------------------

/** h = w * silu(gate) * up for P rows of I floats, w the weight of the row's pair. */
export function moeActivate(gate: usize, up: usize, weights: usize, order: usize, P: i32, I: i32, h: usize): void {
  const stride = <usize>I << 2;
  for (; P > 0; P--, order += 4, gate += stride, up += stride, h += stride) {
    const w = v128.load32_splat(weights + (<usize>load<i32>(order) << 2));
    for (let i = 0; i < I; i += 4) {
      const at = <usize>i << 2, lanes = I - i, g = loadN(gate + at, lanes);
      storeN(h + at, f32x4.mul(f32x4.mul(w, f32x4.mul(g, sigmoid4(g))), loadN(up + at, lanes)), lanes);
    }
  }
}

/**
 * For given dh, which becomes dUp: h again, dGate, and dWeights [P] by pair. With a = silu(gate) * up:
 * dw = dh . a, dGate = w * dh * up * silu'(gate), dUp = w * dh * silu(gate).
 */
export function moeActivateBwd(
  gate: usize, up: usize, weights: usize, order: usize, P: i32, I: i32, dh: usize, dGate: usize, h: usize, dWeights: usize,
): void {
  const stride = <usize>I << 2;
  for (; P > 0; P--, order += 4, gate += stride, up += stride, dh += stride, dGate += stride, h += stride) {
    const pair = <usize>load<i32>(order) << 2, w = v128.load32_splat(weights + pair);
    let dot = f32x4.splat(0);
    for (let i = 0; i < I; i += 4) {
      const at = <usize>i << 2, lanes = I - i;
      const g = loadN(gate + at, lanes), u = loadN(up + at, lanes), s = sigmoid4(g), act = f32x4.mul(g, s);
      const d = loadN(dh + at, lanes), wd = f32x4.mul(w, d), a = f32x4.mul(act, u);
      dot = madd(d, a, dot);
      storeN(h + at, f32x4.mul(w, a), lanes);
      const slope = f32x4.mul(s, madd(g, f32x4.sub(f32x4.splat(1), s), f32x4.splat(1)));
      storeN(dGate + at, f32x4.mul(f32x4.mul(wd, u), slope), lanes);
      storeN(dh + at, f32x4.mul(wd, act), lanes);
    }
    store<f32>(dWeights + pair, hsum(dot));
  }
}
