/**
 * What the chunked kernels of decaying states share: sizes of a chunk and of a segment, decays, states between segments.
 * Decays are never differences of cumulative sums: inside a chunk they are products of exp(g), over a chunk exp(sum of g). So
 * -Infinity and -1e3 give exactly 0, nothing overflows, nothing cancels, and every element of g costs one exponential.
 *
 * A gate is per channel (K floats a token) or per head (one). Names and panels as in product.as.ts and rows.as.ts.
 */
import { exp1, exp4, hsum, madd } from './math.as';
import { PANEL_ROW } from './product.as';
import { packMatrix, pad8, transposePanels } from './rows.as';
import { loadN } from './tail.as';

/** Tokens in a chunk. */
// @ts-ignore: decorator
@inline
export const C: i32 = 16;
/**
 * Tokens in a segment: the kernels work on a segment for one head after the other, so that memory is read almost in order, and the
 * backward pass holds the states of one segment (16 K V floats: 256 KiB at K = V = 64), which stay in the second-level cache.
 */
// @ts-ignore: decorator
@inline
export const SEGMENT: i32 = 256;
/** Bytes of a [16, 16] block and of its rows. */
// @ts-ignore: decorator
@inline
export const SQUARE: usize = 1024;
// @ts-ignore: decorator
@inline
export const SQUARE_ROW: usize = 64;
/** Bytes of a panel of 16 rows. */
// @ts-ignore: decorator
@inline
export const PANEL: usize = 512;

// ---- Segments and states -----------------------------------------------------------------------------------------------------

/** Bytes of a state in panels. */
// @ts-ignore: decorator
@inline
export function stateBytes(K: i32, V: i32): usize {
  return <usize>pad8(K) * <usize>pad8(V) << 2;
}

/** Segments of T tokens but the first: so many states are kept at their starts. */
// @ts-ignore: decorator
@inline
export function innerSegments(T: i32): i32 {
  return (T - 1) / SEGMENT;
}

/** The transposed state of head h at the start of a segment. */
export function startState(initial: usize, starts: usize, segment: i32, h: usize, heads: usize, K: i32, V: i32, to: usize): void {
  const size = stateBytes(K, V);
  let from = starts + (<usize>(segment - 1) * heads + h) * size;
  if (segment == 0) {
    from = to + size; // the place of the next state serves as a buffer
    packMatrix(initial, K, V, from);
  }
  transposePanels(from, K, V, to);
}

// ---- Decays ------------------------------------------------------------------------------------------------------------------

/** decay[r] = exp(g[r]) for n rows (1 in rows past the end), chunkDecay = exp(sum of the rows). Per-channel gates. */
export function channelDecays(g: usize, stride: usize, n: i32, K: i32, decay: usize, chunkDecay: usize): void {
  const row = <usize>pad8(K) << 2, one = f32x4.splat(1);
  for (let col = 0; col < K; col += 4, g += 16, decay += 16, chunkDecay += 16) {
    const lanes = min(4, K - col);
    let sum = f32x4.splat(0), src = g, dst = decay, r = 0;
    for (; r < n; r++, src += stride, dst += row) {
      const x = loadN(src, lanes);
      sum = f32x4.add(sum, x);
      v128.store(dst, exp4(x));
    }
    for (; r < C; r++, dst += row) v128.store(dst, one);
    v128.store(chunkDecay, exp4(sum));
  }
  if (pad8(K) - K < 4) return;
  for (let r = 0; r < C; r++, decay += row) v128.store(decay, one);
  v128.store(chunkDecay, one);
}

/**
 * Per-head gates: token decays, products from the chunk's start and to its end (`head`), pair decays E_ij = prod of the decays of
 * j+1..i followed by their transpose, and the chunk's decay in every channel.
 */
export function headDecays(g: usize, stride: usize, n: i32, Kp: i32, head: usize, pairs: usize, chunkDecay: usize): void {
  const first = pairs;
  let sum: f32 = 0, product: f32 = 1;
  for (let i = 0; i < C; i++, g += stride, head += 4, pairs += SQUARE_ROW) {
    const x = i < n ? load<f32>(g) : 0, a = i < n ? exp1(x) : 1;
    sum += x;
    product *= a;
    store<f32>(head, a);
    store<f32>(head + 64, product);
    for (let j: usize = 0; j < <usize>i; j++) store<f32>(pairs + (j << 2), a * load<f32>(pairs + (j << 2) - SQUARE_ROW));
    store<f32>(pairs + (<usize>i << 2), 1);
    for (let j: usize = i + 1; j < <usize>C; j++) store<f32>(pairs + (j << 2), 0);
    for (let j: usize = 0; j < <usize>C; j++)
      store<f32>(first + SQUARE + j * SQUARE_ROW + (<usize>i << 2), load<f32>(pairs + (j << 2)));
  }
  memory.copy(head + 64, pairs - SQUARE_ROW, 64);
  const e = f32x4.splat(exp1(sum));
  for (const end = chunkDecay + (<usize>Kp << 2); chunkDecay < end; chunkDecay += 16) v128.store(chunkDecay, e);
}

/**
 * Brings the first n rows of a tensor near: one load a cache line, none waiting for another. The heads of a token lie between the rows
 * of one head, a pattern that the machine's own prefetching does not follow. Writes 4 bytes at `sink`.
 */
export function fetch(src: usize, stride: usize, n: i32, width: i32, sink: usize): void {
  let seen = 0;
  for (let r = 0; r < n; r++, src += stride)
    for (let p: usize = 0; p < <usize>width << 2; p += 64) seen |= load<i32>(src + p);
  store<i32>(sink, seen); // a load that nothing comes of may be optimised away
}

/** A = A * E, and 0 where E is 0: so nothing that is masked can matter, not even NaN. The number of columns is a multiple of 4. */
export function decayPairs(A: usize, E: usize, rows: i32, columns: i32): void {
  for (let i = 0; i < rows; i++, A += SQUARE_ROW, E += SQUARE_ROW)
    for (let p: usize = 0; p < <usize>columns << 2; p += 16) {
      const e = v128.load(E + p);
      v128.store(A + p, v128.and(f32x4.mul(v128.load(A + p), e), f32x4.ne(e, f32x4.splat(0))));
    }
}

/** Writes 0 to n floats, `step` bytes apart. */
// @ts-ignore: decorator
@inline
export function clearEach(x: usize, step: usize, n: i32): void {
  for (let i = 0; i < n; i++, x += step) store<f32>(x, 0);
}

/** dst[r] = factors[r] * src[r] for 16 rows. */
export function scaleRows(src: usize, factors: usize, dst: usize, row: usize): void {
  for (const last = factors + 64; factors < last; factors += 4) {
    const f = v128.load_splat<f32>(factors);
    for (const end = src + row; src < end; src += 16, dst += 16) v128.store(dst, f32x4.mul(f, v128.load(src)));
  }
}

/** keys[r] = keys[r] * product of the decays of the rows after r, for a panel of 16 rows. */
export function decayToEnd(keys: usize, decay: usize, row: usize): void {
  let u0 = f32x4.splat(1), u1 = u0;
  decay += 15 * row;
  for (let p = keys + 15 * PANEL_ROW; p >= keys; p -= PANEL_ROW, decay -= row) {
    v128.store(p, f32x4.mul(v128.load(p), u0));
    v128.store(p, f32x4.mul(v128.load(p, 16), u1), 16);
    u0 = f32x4.mul(u0, v128.load(decay));
    u1 = f32x4.mul(u1, v128.load(decay, 16));
  }
}

// ---- Gradients of gates ------------------------------------------------------------------------------------------------------

/**
 * dg in panel e: from the last of n tokens to the first, the running sum of e on top of rowsum(S * dS) after the chunk. A token that
 * forgets everything has dg = 0 exactly, and the sum starts afresh there.
 */
export function finishGates(e: usize, decay: usize, row: usize, n: i32, state: usize, dSt: usize, Vp: i32): void {
  let g0 = f32x4.splat(0), g1 = g0, h0 = g0, h1 = g0;
  for (const end = state + (<usize>Vp << 5); state < end; state += 64, dSt += 64) {
    g0 = madd(v128.load(state), v128.load(dSt), g0);
    g1 = madd(v128.load(state, 16), v128.load(dSt, 16), g1);
    h0 = madd(v128.load(state, 32), v128.load(dSt, 32), h0);
    h1 = madd(v128.load(state, 48), v128.load(dSt, 48), h1);
  }
  g0 = f32x4.add(g0, h0);
  g1 = f32x4.add(g1, h1);
  const zero = f32x4.splat(0);
  decay += <usize>(n - 1) * row;
  for (let p = e + (<usize>(n - 1) << 5); p >= e; p -= 32, decay -= row) {
    g0 = v128.andnot(f32x4.add(g0, v128.load(p)), f32x4.eq(v128.load(decay), zero));
    g1 = v128.andnot(f32x4.add(g1, v128.load(p, 16)), f32x4.eq(v128.load(decay, 16), zero));
    v128.store(p, g0);
    v128.store(p, g1, 16);
  }
}

/** Per-head gates: dg from rows of `sums` (4 floats each): those of e for every token, then rowsum(S * dS); as in finishGates. */
export function headGates(sums: usize, decay: usize, dg: usize, stride: usize, n: i32): void {
  let total = hsum(v128.load(sums, 256));
  for (let r = <usize>n; r-- > 0; ) {
    total = load<f32>(decay + (r << 2)) == 0 ? 0 : total + hsum(v128.load(sums + (r << 4)));
    store<f32>(dg + r * stride, total);
  }
}
