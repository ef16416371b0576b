/**
 * h_t = a_t h_{t-1} + b_t, forward and backward: one pass over the rows where they lie, four floats at a time.
 *
 * A row is `n` floats: D of them, or D pairs [re, im] (`kind` COMPLEX). The state before a row is the output row before it, which is in the
 * first-level cache, so nothing but the tensors themselves is read from memory. `aRow` is the bytes from one row of a to the next, 0 where
 * all tokens share one. A pointer of 0 means absent: no initial state, no gradient of it.
 */
import { BLOCK_ROWS, flushPart, roundTotal } from '../wasm/lib/blockSum.as';
import { exp4, madd } from '../wasm/lib/math.as';
import { copyRow, loadN, storeN } from '../wasm/lib/tail.as';

export { irregularScanBwd, irregularScanFwd } from './irregular.as';

// @ts-ignore: decorator
@inline
const REAL: i32 = 0;
/** a is the natural logarithm of the factor. */
// @ts-ignore: decorator
@inline
const LOG: i32 = 1;
// @ts-ignore: decorator
@inline
const COMPLEX: i32 = 2;

/** out = exp(a): a factor that all tokens share, from its logarithm. */
export function linearScanExp(a: usize, out: usize, n: i32): void {
  for (let i = 0; i < n; i += 4, a += 16, out += 16) storeN(out, exp4(loadN(a, n - i)), n - i);
}

/** out = a * b. */
export function linearScanTimes(a: usize, b: usize, out: usize, n: i32): void {
  for (let i = 0; i < n; i += 4, a += 16, b += 16, out += 16)
    storeN(out, f32x4.mul(loadN(a, n - i), loadN(b, n - i)), n - i);
}

/** N sequences: o [rows, n] and final [N, n] from b [rows, n]; `offsets` has the first row of each and the end of the last. */
export function linearScanFwd(
  a: usize, b: usize, initial: usize, o: usize, final: usize,
  offsets: usize, N: i32, n: i32, aRow: usize, kind: i32, reverse: bool,
): void {
  const row = <usize>n << 2;
  for (let s = 0; s < N; s++, offsets += 4, final += row) {
    const first = load<i32>(offsets), T = load<i32>(offsets, 4) - first;
    let before = initial ? initial + <usize>s * row : 0;
    for (let i = 0; i < T; i++) {
      const t = <usize>(first + (reverse ? T - 1 - i : i));
      advance(a + t * aRow, before, b + t * row, o + t * row, n, kind);
      before = o + t * row;
    }
    copyRow(before, final, n);
  }
}

function advance(a: usize, before: usize, b: usize, o: usize, n: i32, kind: i32): void {
  if (!before) copyRow(b, o, n);
  else if (kind == REAL) advanceRow(a, before, b, o, n, REAL);
  else if (kind == LOG) advanceRow(a, before, b, o, n, LOG);
  else advanceRow(a, before, b, o, n, COMPLEX);
}

// @ts-ignore: decorator
@inline
function advanceRow(a: usize, before: usize, b: usize, o: usize, n: i32, kind: i32): void {
  const end = o + (<usize>(n & ~3) << 2);
  for (; o < end; a += 16, before += 16, b += 16, o += 16)
    v128.store(o, timesPlus(factor(a, kind, 4), v128.load(before), v128.load(b), kind));
  const rest = n & 3;
  if (rest) storeN(o, timesPlus(factor(a, kind, rest), loadN(before, rest), loadN(b, rest), kind), rest);
}

// @ts-ignore: decorator
@inline
function factor(a: usize, kind: i32, lanes: i32): v128 {
  const x = loadN(a, lanes);
  return kind == LOG ? exp4(x) : x;
}

/** a h + c. */
// @ts-ignore: decorator
@inline
function timesPlus(a: v128, h: v128, c: v128, kind: i32): v128 {
  if (kind != COMPLEX) return madd(a, h, c);
  return complexMadd(a, h, c, i32x4(<i32>0x80000000, 0, <i32>0x80000000, 0));
}

/** conj(a) h. */
// @ts-ignore: decorator
@inline
function conjugateTimes(a: v128, h: v128, kind: i32): v128 {
  if (kind != COMPLEX) return f32x4.mul(a, h);
  return complexMadd(a, h, f32x4.splat(0), i32x4(0, <i32>0x80000000, 0, <i32>0x80000000));
}

/** Re(a) h + Im(a) i h + c for two pairs; `signs` makes i h, or -i h, of h with its parts swapped. */
// @ts-ignore: decorator
@inline
function complexMadd(a: v128, h: v128, c: v128, signs: v128): v128 {
  const turned = v128.xor(i32x4.shuffle(h, h, 1, 0, 3, 2), signs);
  return madd(i32x4.shuffle(a, a, 1, 1, 3, 3), turned, madd(i32x4.shuffle(a, a, 0, 0, 2, 2), h, c));
}

/**
 * Gradients of sum(o dO) + sum(final dFinal). With l_t the gradient on h_t and m_t = conj(a_t) l_t: l_t = dO_t + m_{t+1}, db_t = l_t,
 * da_t = l_t conj(h_{t-1}) (m_t h_{t-1} on the logarithm), dInitial = m_1. da has one row for each of a; where all tokens share one, it is
 * their sum. Scratch: `carry` and `part` of n floats, `total` of n doubles, the last two zero and for a shared a only.
 */
export function linearScanBwd(
  a: usize, initial: usize, o: usize, dO: usize, dFinal: usize, da: usize, db: usize, dInitial: usize,
  offsets: usize, N: i32, n: i32, aRow: usize, kind: i32, reverse: bool, carry: usize, part: usize, total: usize,
): void {
  const row = <usize>n << 2;
  let added = 0;
  for (let s = 0; s < N; s++, offsets += 4, dFinal += row) {
    const first = load<i32>(offsets), T = load<i32>(offsets, 4) - first;
    copyRow(dFinal, carry, n);
    for (let i = T - 1; i >= 0; i--) {
      const t = <usize>(first + (reverse ? T - 1 - i : i)), back = reverse ? t + 1 : t - 1;
      const before = i ? o + back * row : initial ? initial + <usize>s * row : 0;
      retreat(a + t * aRow, before, dO + t * row, carry, db + t * row, aRow ? da + t * row : part, n, kind, aRow == 0);
      if (!aRow && ++added == BLOCK_ROWS) {
        flushPart(part, total, n);
        added = 0;
      }
    }
    if (dInitial) copyRow(carry, dInitial + <usize>s * row, n);
  }
  if (aRow) return;
  flushPart(part, total, n);
  roundTotal(total, da, n);
}

function retreat(a: usize, before: usize, dO: usize, carry: usize, db: usize, da: usize, n: i32, kind: i32, sum: bool): void {
  if (kind == REAL) retreatRow(a, before, dO, carry, db, da, n, REAL, sum);
  else if (kind == LOG) retreatRow(a, before, dO, carry, db, da, n, LOG, sum);
  else retreatRow(a, before, dO, carry, db, da, n, COMPLEX, sum);
}

// @ts-ignore: decorator
@inline
function retreatRow(a: usize, before: usize, dO: usize, carry: usize, db: usize, da: usize, n: i32, kind: i32, sum: bool): void {
  const end = db + (<usize>(n & ~3) << 2);
  for (; db < end; a += 16, dO += 16, carry += 16, db += 16, da += 16) {
    retreatLanes(a, before, dO, carry, db, da, 4, kind, sum);
    if (before) before += 16;
  }
  if (n & 3) retreatLanes(a, before, dO, carry, db, da, n & 3, kind, sum);
}

// @ts-ignore: decorator
@inline
function retreatLanes(a: usize, before: usize, dO: usize, carry: usize, db: usize, da: usize, lanes: i32, kind: i32, sum: bool): void {
  const l = f32x4.add(loadN(dO, lanes), loadN(carry, lanes)), m = conjugateTimes(factor(a, kind, lanes), l, kind);
  const h = before ? loadN(before, lanes) : f32x4.splat(0);
  const slope = conjugateTimes(h, kind == LOG ? m : l, kind);
  storeN(db, l, lanes);
  storeN(carry, m, lanes);
  storeN(da, sum ? f32x4.add(loadN(da, lanes), slope) : slope, lanes);
}
