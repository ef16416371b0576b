/** The forward pass: channel by channel, all chunks of all sequences in two products (README.md, section 3). */
import { madd } from '../wasm/lib/math.as';
import { tileProduct } from '../wasm/lib/product.as';
import {
  bbarAt, constantBytes, GROUP, pad4, powersAt, rowBytes, stepsAt, toModesBytes, toTokensBytes, tokenBytes,
} from './plan.as';
import { constants, loadModes, storeModes, toModes, toTokens } from './tables.as';
import { alignLast, chunksOf, packTokens, unpackTokens } from './tokens.as';

/** Bytes of scratch for chunks of Q tokens, R of them in all sequences together. */
export function diagonalSsmFwdScratch(R: i32, M: i32, Q: i32): i32 {
  const rows = pad4(R);
  return <i32>(constantBytes(M, Q) + toModesBytes(M, Q) + toTokensBytes(M, Q) + 2 * <usize>GROUP * tokenBytes(rows, Q) + 2 * <usize>rows * rowBytes(M));
}

/**
 * o [tokens, H], and finalState [N, H, M, 2] unless 0. zeta, psi, c [H, M, 2]; b [copies, M, 2]; d [H] or 0; initialState or 0; offsets: the first
 * token of each of N sequences and the end of the last.
 */
export function diagonalSsmFwd(
  u: usize, zeta: usize, psi: usize, b: usize, c: usize, d: usize, initialState: usize, o: usize, finalState: usize,
  offsets: usize, N: i32, H: i32, M: i32, copies: i32, factor: f32, Q: i32, s: usize,
): void {
  const R = pad4(chunksOf(offsets, N, Q)), channel = tokenBytes(R, Q), mode = <usize>M << 3;
  const into = s + constantBytes(M, Q), out = into + toModesBytes(M, Q), tokens = out + toTokensBytes(M, Q);
  const outputs = tokens + <usize>GROUP * channel, states = outputs + <usize>GROUP * channel, writes = states + <usize>R * rowBytes(M);
  for (let h = 0; h < H; h += GROUP) {
    const n = min(GROUP, H - h);
    packTokens(u, H, h, n, offsets, N, R, Q, tokens);
    for (let i = h; i < h + n; i++) {
      const at = <usize>i * mode, x = tokens + <usize>(i - h) * channel;
      constants(zeta + at, psi + at, b + <usize>(i % copies) * mode, c + at, d ? load<f32>(d + (<usize>i << 2)) : 0, factor, M, Q, s);
      toModes(s, M, Q, true, false, into);
      toTokens(s, M, Q, false, out);
      alignLast(x, offsets, N, Q, true);
      product(x, <usize>Q << 2, R, Q, into, <i32>(rowBytes(M) >> 2), writes);
      alignLast(x, offsets, N, Q, false);
      statesFwd(s, M, Q, offsets, N, H, initialState ? initialState + at : 0, finalState ? finalState + at : 0, states, writes);
      expand(states, x, R, M, Q, out, outputs + <usize>(i - h) * channel);
    }
    unpackTokens(outputs, H, h, n, offsets, N, R, Q, o);
  }
}

/** to [R, columns] = x [R, k] times panels [k, columns]; R a multiple of 4, columns of 8. */
export function product(x: usize, row: usize, R: i32, k: i32, panels: usize, columns: i32, to: usize): void {
  const width = <usize>columns << 2, panel = <usize>k << 5;
  for (let w: usize = 0; w < width; w += 32, panels += panel)
    for (let r: usize = 0; r < <usize>R; r += 4) tileProduct(x + r * row, row, panels, k, 0, 0, 0, 0, to + r * width + w, width, false);
}

/** to [R, Q] = modes [R, W] and tokens [R, Q] times panels [W + Q, Q]. */
export function expand(modes: usize, tokens: usize, R: i32, M: i32, Q: i32, panels: usize, to: usize): void {
  const row = rowBytes(M), W = <i32>(row >> 2), line = <usize>Q << 2, panel = <usize>(W + Q) << 5;
  for (let w: usize = 0; w < line; w += 32, panels += panel) {
    const local = panels + (<usize>W << 5);
    for (let r: usize = 0; r < <usize>R; r += 4)
      tileProduct(modes + r * row, row, panels, W, tokens + r * line, line, local, Q, to + r * line + w, line, false);
  }
}

/**
 * The states before all chunks, rows of modes at `states`, and the final ones: x' = x + (exp(n zeta) - 1) x + bbar v with v from `writes` and n the
 * tokens of the chunk. Initial and final states are those of one channel; that of the next sequence lies H channels on.
 */
export function statesFwd(
  s: usize, M: i32, Q: i32, offsets: usize, N: i32, H: i32, initial: usize, final: usize, states: usize, writes: usize,
): void {
  const row = rowBytes(M), part = row >> 1, between = <usize>H * (<usize>M << 3), bbar = bbarAt(s, M), steps = stepsAt(s, M, Q);
  for (let i = 0; i < N; i++, offsets += 4) {
    const T = load<i32>(offsets, 4) - load<i32>(offsets), chunks = (T + Q - 1) / Q, last = <usize>(chunks - 1) * row;
    loadModes(initial, M, states);
    for (let p: usize = 0; p < part; p += 16) {
      const e = steps + <usize>Q * row + p, er = v128.load(e), ei = v128.load(e + part);
      const br = v128.load(bbar + p), bi = v128.load(bbar + p + part);
      let x = states + p, v = writes + p, xr = v128.load(x), xi = v128.load(x + part);
      for (const end = x + last; x < end; v += row) {
        const vr = v128.load(v), vi = v128.load(v + part);
        const r = moved(xr, er, xi, f32x4.neg(ei), br, vr, f32x4.neg(bi), vi);
        xi = moved(xi, er, xr, ei, br, vi, bi, vr);
        xr = r;
        x += row;
        v128.store(x, xr);
        v128.store(x + part, xi);
      }
    }
    states += last;
    writes += last;
    if (final) {
      const e = steps + <usize>(T - (chunks - 1) * Q) * row; // the write of the last chunk makes room for the final state
      for (let p: usize = 0; p < part; p += 16) {
        const er = v128.load(e + p), ei = v128.load(e + p + part), br = v128.load(bbar + p), bi = v128.load(bbar + p + part);
        const xr = v128.load(states + p), xi = v128.load(states + p + part);
        const vr = v128.load(writes + p), vi = v128.load(writes + p + part);
        v128.store(writes + p, moved(xr, er, xi, f32x4.neg(ei), br, vr, f32x4.neg(bi), vi));
        v128.store(writes + p + part, moved(xi, er, xr, ei, br, vi, bi, vr));
      }
      storeModes(writes, M, final);
      final += between;
    }
    if (initial) initial += between;
    states += row;
    writes += row;
  }
}

/** x + a x + b y + c v + d w. */
// @ts-ignore: decorator
@inline
function moved(x: v128, a: v128, y: v128, b: v128, c: v128, v: v128, d: v128, w: v128): v128 {
  return f32x4.add(x, madd(a, x, madd(b, y, madd(c, v, f32x4.mul(d, w)))));
}
