/** From queries to the queries that linear attention reads with, chunk by chunk (README, section 7). */
import { C, fetch, innerSegments, SEGMENT, stateBytes } from '../wasm/lib/chunk.as';
import { pad8, unpackMatrix } from '../wasm/lib/rows.as';
import { advance, denseStates, headAt, headStride, keyProducts, mixRows, Plan, planOf, readKeys, restAt, rowAt, rowStride, startMatrix } from './plan.as';
import { makeNorms, solveRows, turnKeys } from './solve.as';
import { tokenFwd } from './token.as';

/** Bytes of scratch of gatedKalmaNetFwd, without the offsets. */
export function gatedKalmaNetFwdScratch(H: i32, D: i32): usize {
  return restAt(0, pad8(D)) + <usize>H * stateBytes(D, D);
}

/** Floats of the matrices at the starts of all segments but the first of a sequence of T tokens; the forward pass writes them for the backward. */
export function gatedKalmaNetStarts(T: i32, H: i32, D: i32): i32 {
  return innerSegments(T) * H * <i32>(stateBytes(D, D) >> 2);
}

/**
 * queries = q + alpha (x - q), with x of (H_t + ridge ||H_t|| I) x_t = q_t by `iterations` steps (0: x = q). q, k, queries [*, H, D], g, alpha
 * [*, H], where * counts tokens; sequence n is tokens offsets[n] to offsets[n + 1]. g may be 0: no decay. initial (0: zeros) and final are
 * [N, H, D, D]. For the backward pass it writes x [*, H, D], norms ||H_t|| [*, H] and `starts` (see gatedKalmaNetStarts; sequence after sequence).
 */
export function gatedKalmaNetFwd(
  q: usize, k: usize, g: usize, alpha: usize, initial: usize, queries: usize, final: usize, x: usize, norms: usize, starts: usize,
  offsets: usize, N: i32, H: i32, D: i32, iterations: i32, ridge: f32, s: usize,
): void {
  const p = planOf(s, q, k, g, alpha, initial, x, norms, starts, H, D, iterations, ridge);
  for (let n = 0; n < N; n++, offsets += 4, final += denseStates(p)) {
    const t = load<i32>(offsets), T = load<i32>(offsets, 4) - t;
    if (T == 1) tokenFwd(p, t, queries, final);
    else sequenceFwd(p, t, T, queries, final);
    if (initial) p.initial += denseStates(p);
  }
}

function sequenceFwd(p: Plan, first: i32, T: i32, queries: usize, final: usize): void {
  const D = p.D, heads = <usize>p.H, size = stateBytes(D, D), states = p.rest;
  for (let h: usize = 0; h < heads; h++) startMatrix(p, 0, h, states + h * size);
  for (let t = 0; t < T; t += SEGMENT) {
    if (t) {
      memory.copy(p.starts, states, heads * size);
      p.starts += heads * size;
    }
    const end = min(t + SEGMENT, T);
    for (let h = 0; h < p.H; h++)
      for (let c = t; c < end; c += C) chunkFwd(p, first + c, min(C, end - c), h, queries, states + <usize>h * size);
  }
  for (let h: usize = 0; h < heads; h++) unpackMatrix(states + h * size, D, D, final + h * (<usize>(D * D) << 2));
}

function chunkFwd(p: Plan, t: i32, n: i32, h: i32, queries: usize, state: usize): void {
  const stride = rowStride(p), q = rowAt(p, p.q, t, h);
  fetch(q, stride, n, p.D, p.panel);
  readKeys(p, t, n, h);
  if (p.iterations) {
    turnKeys(p, state, n);
    keyProducts(p);
    makeNorms(p, n, headAt(p, p.norms, t, h), headStride(p));
    solveRows(p, q, stride, n, p.D, p.xRows);
  }
  mixRows(p, t, n, h, p.xRows, rowAt(p, queries, t, h));
  advance(p, state, state);
}
