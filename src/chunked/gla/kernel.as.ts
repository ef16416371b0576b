/**
 * Gated linear attention, forward and backward, chunk by chunk on the tensors where they lie (derivation: README.md).
 *
 * A chunk is 16 tokens in 4 blocks of 4, with decays as wasm/lib/chunk.as.ts makes them. A chunk this small keeps all of its blocks
 * and the state (K V floats) near the first-level cache.
 *
 * Names: Kp, Vp = K, V padded to multiples of 8. Rows past the end of a sequence have q = k = v = 0 and g = 0.
 * "Panel": 8 columns, 32 bytes a row (wasm/lib/product.as.ts).
 */
import { diagonalBlock, stretchKeys, stretchQueries } from '../wasm/lib/blocks.as';
import {
  C, channelDecays, decayPairs, decayToEnd, fetch, finishGates, headDecays, headGates, innerSegments, PANEL, SEGMENT, SQUARE, SQUARE_ROW,
  scaleRows, startState, stateBytes,
} from '../wasm/lib/chunk.as';
import { exp1, madd } from '../wasm/lib/math.as';
import { PANEL_ROW, panelUpdate, rowsTimesRows, tileProduct } from '../wasm/lib/product.as';
import { packMatrix, packPanel, packRows, pad8, transposePanels, unpackMatrix, unpackPanel } from '../wasm/lib/rows.as';
import { loadN, storeN } from '../wasm/lib/tail.as';

// ---- Scratch of a chunk, shared by forward and backward: fixed offsets from `s` -----------------------------------------------
// [16, 16] blocks: scores, pair decays (per-head gates), their transpose, upstream scores | 8 panels of 16 rows | per-head decays
// | [16, Kp] rows: q, k, decay, qg, kc | chunk decay [Kp] | the rest: states and what only the backward pass needs.

// @ts-ignore: decorator
@inline
function scoresAt(s: usize): usize { return s; }
// @ts-ignore: decorator
@inline
function pairsAt(s: usize): usize { return s + SQUARE; }
// @ts-ignore: decorator
@inline
function upstreamScoresAt(s: usize): usize { return s + 3 * SQUARE; }
// @ts-ignore: decorator
@inline
function panelAt(s: usize, i: usize): usize { return s + 4 * SQUARE + i * PANEL; }
/** Per-head gates, 16 floats each: decay of a token, decay from the chunk's start, decay to its end; then the diagonal of dA. */
// @ts-ignore: decorator
@inline
function headDecaysAt(s: usize): usize { return panelAt(s, 8); }
// @ts-ignore: decorator
@inline
function rowsAt(s: usize, Kp: i32, i: usize): usize { return s + 4 * SQUARE + 9 * PANEL + i * (<usize>Kp << 6); }
// @ts-ignore: decorator
@inline
function qAt(s: usize, Kp: i32): usize { return rowsAt(s, Kp, 0); }
// @ts-ignore: decorator
@inline
function kAt(s: usize, Kp: i32): usize { return rowsAt(s, Kp, 1); }
// @ts-ignore: decorator
@inline
function decayAt(s: usize, Kp: i32): usize { return rowsAt(s, Kp, 2); }
// @ts-ignore: decorator
@inline
function qgAt(s: usize, Kp: i32): usize { return rowsAt(s, Kp, 3); }
// @ts-ignore: decorator
@inline
function kcAt(s: usize, Kp: i32): usize { return rowsAt(s, Kp, 4); }
// @ts-ignore: decorator
@inline
function chunkDecayAt(s: usize, Kp: i32): usize { return rowsAt(s, Kp, 5); }
/** Where the part that only one of the kernels needs begins. */
// @ts-ignore: decorator
@inline
function restAt(s: usize, Kp: i32): usize { return chunkDecayAt(s, Kp) + (<usize>Kp << 2); }

// ---- Decays of a chunk --------------------------------------------------------------------------------------------------------

/** Fetches what a chunk's change of the state is made of. */
function fetchWrites(
  k: usize, v: usize, g: usize, keys: usize, values: usize, gates: usize, n: i32, K: i32, V: i32, perHead: bool, s: usize,
): void {
  fetch(k, keys, n, K, panelAt(s, 0));
  fetch(g, gates, n, perHead ? 1 : K, panelAt(s, 0));
  fetch(v, values, n, V, panelAt(s, 0));
}

/** Reads a chunk: q (times scale), k, the decays. */
function readChunk(
  q: usize, k: usize, g: usize, stride: usize, gateStride: usize, n: i32, K: i32, perHead: bool, scale: f32, s: usize,
): void {
  const Kp = pad8(K);
  packRows(q, stride, n, K, qAt(s, Kp), C, scale);
  packRows(k, stride, n, K, kAt(s, Kp), C, 1);
  if (perHead) headDecays(g, gateStride, n, Kp, headDecaysAt(s), pairsAt(s), chunkDecayAt(s, Kp));
  else channelDecays(g, gateStride, n, K, decayAt(s, Kp), chunkDecayAt(s, Kp));
}

// ---- Scores, and queries and keys decayed to the chunk's borders --------------------------------------------------------------

/**
 * After readChunk: scores A_ij = q_i . (k_j * decay j+1..i), j <= i (transposed for the backward pass), qg = q * decay from the
 * chunk's start, kc = k * decay to the chunk's end. Only the first `tiles` blocks of 4 tokens are filled.
 */
function prepare(s: usize, Kp: i32, tiles: i32, perHead: bool, transposed: bool): void {
  if (perHead) prepareHead(s, Kp, tiles, transposed);
  else prepareChannels(s, Kp, tiles, transposed);
}

function prepareChannels(s: usize, Kp: i32, tiles: i32, transposed: bool): void {
  const row = <usize>Kp << 2, block = row << 2;
  const A = scoresAt(s), qg = qgAt(s, Kp), kc = kcAt(s, Kp);
  for (let a: usize = 0; a < <usize>tiles; a++) {
    const at = a * block, corner = A + a * (4 * SQUARE_ROW + 16);
    diagonalBlock(qAt(s, Kp) + at, kAt(s, Kp) + at, decayAt(s, Kp) + at, qg + at, kc + at, row, corner, SQUARE_ROW, transposed);
    // Here qg[a] starts at its own block and the keys of earlier blocks end where block a begins.
    if (transposed) for (let b: usize = 0; b < a; b++) rowsTimesRows(kc + b * block, row, qg + at, row, Kp, A + b * (4 * SQUARE_ROW) + a * 16, SQUARE_ROW, 4);
    else rowsTimesRows(qg + at, row, kc, row, Kp, A + a * (4 * SQUARE_ROW), SQUARE_ROW, <i32>a << 2);
    if (!a) continue;
    stretchQueries(qg + at, decayAt(s, Kp), row, a);
    stretchKeys(kc, a << 2, decayAt(s, Kp) + at, row);
  }
}

function prepareHead(s: usize, Kp: i32, tiles: i32, transposed: bool): void {
  const row = <usize>Kp << 2, A = scoresAt(s), head = headDecaysAt(s);
  const left = transposed ? kAt(s, Kp) : qAt(s, Kp), right = transposed ? qAt(s, Kp) : kAt(s, Kp);
  for (let a: usize = 0; a < <usize>tiles; a++)
    rowsTimesRows(left + a * (row << 2), row, right, row, Kp, A + a * (4 * SQUARE_ROW), SQUARE_ROW, tiles << 2);
  decayPairs(A, transposed ? pairsAt(s) + SQUARE : pairsAt(s), tiles << 2, tiles << 2);
  scaleRows(qAt(s, Kp), head + 64, qgAt(s, Kp), row);
  scaleRows(kAt(s, Kp), head + 128, kcAt(s, Kp), row);
}

// ---- Forward ------------------------------------------------------------------------------------------------------------------

/** Bytes of scratch of glaFwd, without the offsets. */
export function glaFwdScratch(H: i32, K: i32, V: i32): usize {
  return restAt(0, pad8(K)) + <usize>H * stateBytes(K, V);
}

/** Floats of the states at the starts of all segments but the first of a sequence of T tokens; glaFwd writes them for glaBwd. */
export function glaStarts(T: i32, H: i32, K: i32, V: i32): i32 {
  return innerSegments(T) * H * <i32>(stateBytes(K, V) >> 2);
}

/**
 * q, k [*, H, K], v, o [*, H, V], g [*, H, K] or (perHead) [*, H], where * counts tokens; sequence n is tokens offsets[n] to
 * offsets[n + 1]. initial (0: zeros) and final are [N, H, K, V]; starts holds what glaStarts counts, sequence after sequence, or is
 * 0 where there will be no backward pass.
 */
export function glaFwd(
  q: usize, k: usize, v: usize, g: usize, initial: usize, o: usize, final: usize, starts: usize,
  offsets: usize, N: i32, H: i32, K: i32, V: i32, perHead: bool, scale: f32, s: usize,
): void {
  const keys = <usize>(H * K) << 2, values = <usize>(H * V) << 2, gates = perHead ? <usize>H << 2 : keys;
  const states = <usize>H * <usize>(K * V) << 2;
  for (let n = 0; n < N; n++, offsets += 4) {
    const first = <usize>load<i32>(offsets), T = load<i32>(offsets, 4) - load<i32>(offsets);
    const key = first * keys, value = first * values, gate = first * gates;
    if (T == 1) tokenFwd(q + key, k + key, v + value, g + gate, initial, o + value, final, H, K, V, perHead, scale);
    else sequenceFwd(q + key, k + key, v + value, g + gate, initial, o + value, final, starts, T, H, K, V, perHead, scale, s);
    if (starts) starts += <usize>(innerSegments(T) * H) * stateBytes(K, V);
    final += states;
    if (initial) initial += states;
  }
}

/** A sequence of one token, head by head. */
function tokenFwd(
  q: usize, k: usize, v: usize, g: usize, initial: usize, o: usize, final: usize, H: i32, K: i32, V: i32, perHead: bool, scale: f32,
): void {
  const keys = <usize>K << 2, values = <usize>V << 2, state = <usize>K * values;
  for (let h = 0; h < H; h++, q += keys, k += keys, v += values, o += values, final += state) {
    step(q, k, v, g, initial, o, final, K, V, perHead, scale);
    g += perHead ? 4 : keys;
    if (initial) initial += state;
  }
}

/** One token: S = exp(g) S + k v^T, o = scale * q S, row by row. */
function step(
  q: usize, k: usize, v: usize, g: usize, initial: usize, o: usize, final: usize, K: i32, V: i32, perHead: bool, scale: f32,
): void {
  memory.fill(o, 0, <usize>V << 2);
  const full = <usize>(V & ~3) << 2, tail = V & 3;
  for (let i = 0; i < K; i++, q += 4, k += 4, final += <usize>V << 2) {
    const a = initial ? f32x4.splat(exp1(load<f32>(g))) : f32x4.splat(0);
    const key = v128.load_splat<f32>(k), query = f32x4.splat(scale * load<f32>(q));
    for (let p: usize = 0; p < full; p += 16) stepCell(initial, v + p, o + p, final + p, a, key, query, p, 4);
    if (tail) stepCell(initial, v + full, o + full, final + full, a, key, query, full, tail);
    if (initial) initial += <usize>V << 2;
    if (!perHead) g += 4;
  }
}

// @ts-ignore: decorator
@inline
function stepCell(initial: usize, v: usize, o: usize, final: usize, a: v128, key: v128, query: v128, p: usize, lanes: i32): void {
  let x = f32x4.mul(key, loadN(v, lanes));
  if (initial) x = madd(a, loadN(initial + p, lanes), x);
  storeN(final, x, lanes);
  storeN(o, madd(query, x, loadN(o, lanes)), lanes);
}

function sequenceFwd(
  q: usize, k: usize, v: usize, g: usize, initial: usize, o: usize, final: usize, starts: usize,
  T: i32, H: i32, K: i32, V: i32, perHead: bool, scale: f32, s: usize,
): void {
  const keys = <usize>(H * K) << 2, values = <usize>(H * V) << 2, gates = perHead ? <usize>H << 2 : keys;
  const dense = <usize>(K * V) << 2, size = stateBytes(K, V), states = restAt(s, pad8(K));
  for (let h: usize = 0; h < <usize>H; h++) packMatrix(initial ? initial + h * dense : 0, K, V, states + h * size);
  for (let t = 0; t < T; t += SEGMENT) {
    if (t && starts) {
      memory.copy(starts, states, <usize>H * size);
      starts += <usize>H * size;
    }
    const at = <usize>t, n = min(SEGMENT, T - t);
    for (let h: usize = 0; h < <usize>H; h++)
      segmentFwd(
        q + at * keys + h * (<usize>K << 2), k + at * keys + h * (<usize>K << 2), v + at * values + h * (<usize>V << 2),
        g + at * gates + h * (perHead ? 4 : <usize>K << 2), o + at * values + h * (<usize>V << 2), states + h * size,
        n, keys, values, gates, K, V, perHead, scale, s,
      );
  }
  for (let h: usize = 0; h < <usize>H; h++) unpackMatrix(states + h * size, K, V, final + h * dense);
}

/** T tokens of one head, chunk by chunk; tokens of q and k are `keys` bytes apart, of v and o `values`, of g `gates`. */
function segmentFwd(
  q: usize, k: usize, v: usize, g: usize, o: usize, state: usize, T: i32, keys: usize, values: usize, gates: usize,
  K: i32, V: i32, perHead: bool, scale: f32, s: usize,
): void {
  for (let t = 0; t < T; t += C) {
    const n = min(C, T - t);
    fetch(q, keys, n, K, panelAt(s, 0));
    fetchWrites(k, v, g, keys, values, gates, n, K, V, perHead, s);
    fetch(o, values, n, V, panelAt(s, 0));
    readChunk(q, k, g, keys, gates, n, K, perHead, scale, s);
    prepare(s, pad8(K), (n + 3) >> 2, perHead, false);
    valuesFwd(v, o, values, n, K, V, state, s);
    q += keys << 4;
    k += keys << 4;
    g += gates << 4;
    v += values << 4;
    o += values << 4;
  }
}

/** o = qg S + A v and S = chunkDecay * S + kc^T v, 8 columns of v at a time. */
function valuesFwd(v: usize, o: usize, stride: usize, n: i32, K: i32, V: i32, state: usize, s: usize): void {
  const Kp = pad8(K), row = <usize>Kp << 2, qg = qgAt(s, Kp), kc = kcAt(s, Kp), A = scoresAt(s);
  const vPanel = panelAt(s, 0), tile = panelAt(s, 1);
  for (let col = 0; col < V; col += 8, state += <usize>Kp << 5) {
    packPanel(v, stride, n, V, col, vPanel, C);
    for (let r = 0; r < n; r += 4) {
      const whole = V - col >= 8 && n - r >= 4, at = <usize>r;
      const out = o + at * stride, c = whole ? out + (<usize>col << 2) : tile;
      tileProduct(qg + at * row, row, state, Kp, A + at * SQUARE_ROW, SQUARE_ROW, vPanel, r + 4, c, whole ? stride : PANEL_ROW, false);
      if (!whole) unpackPanel(tile, PANEL_ROW, out, stride, min(4, n - r), V, col);
    }
    panelUpdate(kc, row, vPanel, (n + 3) & ~3, state, state, Kp, chunkDecayAt(s, Kp), 0, 0, 0);
  }
}

// ---- Backward -----------------------------------------------------------------------------------------------------------------
// States are held transposed ([V, K] in panels of K): their only use here is dO S^T and rowsum(S * dS). The gradient on the state is
// held both ways: dS for dv, dS^T for dk.

// @ts-ignore: decorator
@inline
function valueRowsAt(s: usize, Kp: i32): usize { return restAt(s, Kp); }
// @ts-ignore: decorator
@inline
function upstreamRowsAt(s: usize, Kp: i32, Vp: i32): usize { return valueRowsAt(s, Kp) + (<usize>Vp << 6); }
/** dS of every head, then dS^T of every head, then the states of a segment. */
// @ts-ignore: decorator
@inline
function statesAt(s: usize, Kp: i32, Vp: i32): usize { return upstreamRowsAt(s, Kp, Vp) + (<usize>Vp << 6); }

/** Bytes of scratch of glaBwd, without the offsets. T is the longest sequence. */
export function glaBwdScratch(T: i32, H: i32, K: i32, V: i32): usize {
  const held = (min(T, SEGMENT) + C - 1) / C + 1;
  return statesAt(0, pad8(K), pad8(V)) + <usize>(2 * H + held) * stateBytes(K, V);
}

/**
 * Gradients of sum(o * dO) + sum(final * dFinal); tensors and starts as in glaFwd. The states before the chunks of a segment are
 * computed again from the one at its start. dInitial may be 0.
 */
export function glaBwd(
  q: usize, k: usize, v: usize, g: usize, initial: usize, starts: usize, dO: usize, dFinal: usize,
  dq: usize, dk: usize, dv: usize, dg: usize, dInitial: usize,
  offsets: usize, N: i32, H: i32, K: i32, V: i32, perHead: bool, scale: f32, s: usize,
): void {
  const keys = <usize>(H * K) << 2, values = <usize>(H * V) << 2, gates = perHead ? <usize>H << 2 : keys;
  const states = <usize>H * <usize>(K * V) << 2;
  for (let n = 0; n < N; n++, offsets += 4) {
    const first = <usize>load<i32>(offsets), T = load<i32>(offsets, 4) - load<i32>(offsets);
    const key = first * keys, value = first * values, gate = first * gates;
    sequenceBwd(
      q + key, k + key, v + value, g + gate, initial, starts, dO + value, dFinal,
      dq + key, dk + key, dv + value, dg + gate, dInitial, T, H, K, V, perHead, scale, s,
    );
    starts += <usize>(innerSegments(T) * H) * stateBytes(K, V);
    dFinal += states;
    if (initial) initial += states;
    if (dInitial) dInitial += states;
  }
}

function sequenceBwd(
  q: usize, k: usize, v: usize, g: usize, initial: usize, starts: usize, dO: usize, dFinal: usize,
  dq: usize, dk: usize, dv: usize, dg: usize, dInitial: usize,
  T: i32, H: i32, K: i32, V: i32, perHead: bool, scale: f32, s: usize,
): void {
  const keys = <usize>(H * K) << 2, values = <usize>(H * V) << 2, gates = perHead ? <usize>H << 2 : keys;
  const dense = <usize>(K * V) << 2, size = stateBytes(K, V), heads = <usize>H;
  const dS = statesAt(s, pad8(K), pad8(V)), dSt = dS + heads * size, held = dSt + heads * size;
  for (let h: usize = 0; h < heads; h++) {
    packMatrix(dFinal + h * dense, K, V, dS + h * size);
    transposePanels(dS + h * size, K, V, dSt + h * size);
  }
  for (let segment = innerSegments(T); segment >= 0; segment--) {
    const t = <usize>(segment * SEGMENT), n = min(SEGMENT, T - segment * SEGMENT);
    for (let h: usize = 0; h < heads; h++) {
      const key = t * keys + h * (<usize>K << 2), value = t * values + h * (<usize>V << 2);
      const gate = t * gates + h * (perHead ? 4 : <usize>K << 2);
      startState(initial ? initial + h * dense : 0, starts, segment, h, heads, K, V, held);
      segmentBwd(
        q + key, k + key, v + value, g + gate, dO + value, dq + key, dk + key, dv + value, dg + gate,
        n, keys, values, gates, K, V, perHead, scale, dS + h * size, dSt + h * size, held, s,
      );
    }
  }
  if (dInitial) for (let h: usize = 0; h < heads; h++) unpackMatrix(dS + h * size, K, V, dInitial + h * dense);
}

/** T tokens of one head: the states before its chunks into `held`, then the chunks from the last to the first. Strides as in segmentFwd. */
function segmentBwd(
  q: usize, k: usize, v: usize, g: usize, dO: usize, dq: usize, dk: usize, dv: usize, dg: usize,
  T: i32, keys: usize, values: usize, gates: usize, K: i32, V: i32, perHead: bool, scale: f32,
  dS: usize, dSt: usize, held: usize, s: usize,
): void {
  const Kp = pad8(K), Vp = pad8(V), size = stateBytes(K, V), chunks = (T + C - 1) / C;
  for (let c = 0; c < chunks; c++) {
    const t = <usize>c * C, from = held + <usize>c * size;
    advance(k + t * keys, v + t * values, g + t * gates, keys, values, gates, min(C, T - c * C), K, V, perHead, from, from + size, s);
  }
  for (let c = chunks - 1; c >= 0; c--) {
    const t = <usize>c * C, n = min(C, T - c * C), before = held + <usize>c * size;
    fetch(q + t * keys, keys, n, K, panelAt(s, 0));
    fetch(dO + t * values, values, n, V, panelAt(s, 0));
    fetchWrites(k + t * keys, v + t * values, g + t * gates, keys, values, gates, n, K, V, perHead, s);
    readChunk(q + t * keys, k + t * keys, g + t * gates, keys, gates, n, K, perHead, scale, s);
    packRows(v + t * values, values, n, V, valueRowsAt(s, Kp), C, 1);
    packRows(dO + t * values, values, n, V, upstreamRowsAt(s, Kp, Vp), C, 1);
    prepare(s, Kp, (n + 3) >> 2, perHead, true);
    keysBwd(dq + t * keys, dk + t * keys, dg + t * gates, keys, gates, n, K, V, perHead, scale, before, dSt, s);
    valuesBwd(dO + t * values, dv + t * values, values, n, K, V, dS, dSt, s);
  }
}

/** to = chunkDecay * from + (kc^T v), both transposed states. */
function advance(
  k: usize, v: usize, g: usize, stride: usize, valueStride: usize, gateStride: usize, n: i32, K: i32, V: i32, perHead: bool,
  from: usize, to: usize, s: usize,
): void {
  const Kp = pad8(K), Vp = pad8(V), row = <usize>Kp << 2, keys = panelAt(s, 0), values = valueRowsAt(s, Kp);
  fetchWrites(k, v, g, stride, valueStride, gateStride, n, K, V, perHead, s);
  packRows(v, valueStride, n, V, values, C, 1);
  if (perHead) headDecays(g, gateStride, n, Kp, headDecaysAt(s), pairsAt(s), chunkDecayAt(s, Kp));
  else channelDecays(g, gateStride, n, K, decayAt(s, Kp), chunkDecayAt(s, Kp));
  for (let col = 0; col < K; col += 8, from += <usize>Vp << 5, to += <usize>Vp << 5) {
    const at = <usize>col << 2;
    packPanel(k, stride, n, K, col, keys, C);
    if (perHead) scaleRows(keys, headDecaysAt(s) + 128, keys, PANEL_ROW);
    else decayToEnd(keys, decayAt(s, Kp) + at, row);
    panelUpdate(values, <usize>Vp << 2, keys, (n + 3) & ~3, from, to, Vp, 0, chunkDecayAt(s, Kp) + at, 0, 0);
  }
}

/**
 * Gradients on q, k and g of a chunk, 8 channels at a time: the parts through the states are products here, those inside the chunk
 * are added by finishChannels or finishHead.
 */
function keysBwd(
  dq: usize, dk: usize, dg: usize, stride: usize, gateStride: usize, n: i32, K: i32, V: i32, perHead: bool, scale: f32,
  before: usize, dSt: usize, s: usize,
): void {
  const Kp = pad8(K), Vp = pad8(V), tiles = (n + 3) >> 2, row = <usize>Vp << 2;
  const values = valueRowsAt(s, Kp), upstream = upstreamRowsAt(s, Kp, Vp), dA = upstreamScoresAt(s);
  const x = panelAt(s, 2), y = panelAt(s, 3), e = panelAt(s, 5), panel = <usize>Vp << 5, size = <usize>Kp * <usize>Vp << 2;
  for (let a: usize = 0; a < <usize>tiles; a++)
    rowsTimesRows(upstream + a * (row << 2), row, values, row, Vp, dA + a * (4 * SQUARE_ROW), SQUARE_ROW, perHead ? tiles << 2 : <i32>(a + 1) << 2);
  if (perHead) startHead(s, tiles);
  for (let col = 0; col < K; col += 8, before += panel, dSt += panel) {
    for (let a: usize = 0; a < <usize>tiles; a++) {
      tileProduct(upstream + a * (row << 2), row, before, Vp, 0, 0, 0, 0, x + a * 128, PANEL_ROW, false);
      tileProduct(values + a * (row << 2), row, dSt, Vp, 0, 0, 0, 0, y + a * 128, PANEL_ROW, false);
    }
    const after = before + size;
    if (perHead) {
      finishHead(s, Kp, col, tiles, scale, after, dSt, Vp);
    } else {
      finishQueries(s, Kp, col, tiles, scale);
      finishKeys(s, Kp, col, tiles);
      finishGates(e, decayAt(s, Kp) + (<usize>col << 2), <usize>Kp << 2, n, after, dSt, Vp);
      unpackPanel(e, PANEL_ROW, dg, stride, n, K, col);
    }
    unpackPanel(x, PANEL_ROW, dq, stride, n, K, col);
    unpackPanel(y, PANEL_ROW, dk, stride, n, K, col);
  }
  if (perHead) headGates(panelAt(s, 6), headDecaysAt(s), dg, gateStride, n);
}

/**
 * Completes dq in panel x, which holds dO S^T. `stage` holds the keys of earlier blocks decayed to the end of the block before; e gets
 * q * dq without the diagonal term, which cancels in the gate's gradient.
 */
function finishQueries(s: usize, Kp: i32, col: i32, tiles: i32, scale: f32): void {
  const row = <usize>Kp << 2, at = <usize>col << 2, stage = panelAt(s, 4), dA = upstreamScoresAt(s);
  let q = qAt(s, Kp) + at, k = kAt(s, Kp) + at, d = decayAt(s, Kp) + at, x = panelAt(s, 2), e = panelAt(s, 5);
  let before0 = f32x4.splat(1), before1 = before0;
  for (let a: usize = 0; a < <usize>tiles; a++) {
    if (a) {
      for (let p = x; p < x + 128; p += 32) {
        v128.store(p, f32x4.mul(v128.load(p), before0));
        v128.store(p, f32x4.mul(v128.load(p, 16), before1), 16);
      }
      tileProduct(dA + a * (4 * SQUARE_ROW), SQUARE_ROW, stage, <i32>a << 2, 0, 0, 0, 0, x, PANEL_ROW, true);
    }
    const corner = dA + a * (4 * SQUARE_ROW + 16);
    before0 = f32x4.mul(before0, queryBlock(q, k, d, row, corner, x, e, stage, a, scale));
    before1 = f32x4.mul(before1, queryBlock(q + 16, k + 16, d + 16, row, corner, x + 16, e + 16, stage + 16, a, scale));
    q += row << 2;
    k += row << 2;
    d += row << 2;
    x += 128;
    e += 128;
  }
}

/** One block of finishQueries, 4 channels; returns the decay through the block. */
function queryBlock(
  q: usize, k: usize, d: usize, row: usize, dA: usize, x: usize, e: usize, stage: usize, a: usize, scale: f32,
): v128 {
  const row2 = row << 1, row3 = row2 + row;
  const d0 = v128.load(d), d1 = v128.load(d + row), d2 = v128.load(d + row2), d3 = v128.load(d + row3);
  const k0 = v128.load(k), k1 = v128.load(k + row), k2 = v128.load(k + row2), k3 = v128.load(k + row3);
  const p1 = f32x4.mul(d0, d1), p2 = f32x4.mul(p1, d2), p3 = f32x4.mul(p2, d3);
  const x0 = f32x4.mul(v128.load(x), d0);
  let t = f32x4.mul(v128.load_splat<f32>(dA + SQUARE_ROW), k0);
  const x1 = madd(d1, t, f32x4.mul(v128.load(x, 32), p1));
  t = f32x4.mul(v128.load_splat<f32>(dA + 2 * SQUARE_ROW), k0);
  t = madd(d1, t, f32x4.mul(v128.load_splat<f32>(dA + 2 * SQUARE_ROW, 4), k1));
  const x2 = madd(d2, t, f32x4.mul(v128.load(x, 64), p2));
  t = f32x4.mul(v128.load_splat<f32>(dA + 3 * SQUARE_ROW), k0);
  t = madd(d1, t, f32x4.mul(v128.load_splat<f32>(dA + 3 * SQUARE_ROW, 4), k1));
  t = madd(d2, t, f32x4.mul(v128.load_splat<f32>(dA + 3 * SQUARE_ROW, 8), k2));
  const x3 = madd(d3, t, f32x4.mul(v128.load(x, 96), p3));
  v128.store(e, f32x4.mul(v128.load(q), x0));
  v128.store(e, f32x4.mul(v128.load(q + row), x1), 32);
  v128.store(e, f32x4.mul(v128.load(q + row2), x2), 64);
  v128.store(e, f32x4.mul(v128.load(q + row3), x3), 96);
  const f = f32x4.splat(scale);
  v128.store(x, f32x4.mul(f, madd(v128.load_splat<f32>(dA), k0, x0)));
  v128.store(x, f32x4.mul(f, madd(v128.load_splat<f32>(dA + SQUARE_ROW, 4), k1, x1)), 32);
  v128.store(x, f32x4.mul(f, madd(v128.load_splat<f32>(dA + 2 * SQUARE_ROW, 8), k2, x2)), 64);
  v128.store(x, f32x4.mul(f, madd(v128.load_splat<f32>(dA + 3 * SQUARE_ROW, 12), k3, x3)), 96);
  // The next blocks see these keys, and the earlier ones, decayed to the end of this block.
  const own = stage + (a << 7);
  for (let p = stage; p < own; p += 32) v128.store(p, f32x4.mul(v128.load(p), p3));
  const u1 = f32x4.mul(d2, d3);
  v128.store(own, f32x4.mul(k0, f32x4.mul(d1, u1)));
  v128.store(own, f32x4.mul(k1, u1), 32);
  v128.store(own, f32x4.mul(k2, d3), 64);
  v128.store(own, k3, 96);
  return p3;
}

/** Completes dk in panel y, which holds v dS^T, from the last block to the first; e loses k * dk. The mirror image of finishQueries. */
function finishKeys(s: usize, Kp: i32, col: i32, tiles: i32): void {
  const row = <usize>Kp << 2, at = <usize>col << 2, stage = panelAt(s, 4), dA = upstreamScoresAt(s);
  let after0 = f32x4.splat(1), after1 = after0;
  for (let b = tiles - 1; b >= 0; b--) {
    const i = <usize>b, rows = at + i * (row << 2), panel = i << 7;
    const q = qAt(s, Kp) + rows, k = kAt(s, Kp) + rows, d = decayAt(s, Kp) + rows;
    const y = panelAt(s, 3) + panel, e = panelAt(s, 5) + panel, corner = dA + i * (4 * SQUARE_ROW + 16);
    if (b < tiles - 1) {
      for (let p = y; p < y + 128; p += 32) {
        v128.store(p, f32x4.mul(v128.load(p), after0));
        v128.store(p, f32x4.mul(v128.load(p, 16), after1), 16);
      }
      panelUpdate(corner + 4 * SQUARE_ROW, SQUARE_ROW, stage + panel + 128, (tiles - 1 - b) << 2, y, y, 4, 0, 0, 0, 0);
    }
    const end = stage + (<usize>tiles << 7);
    after0 = f32x4.mul(after0, keyBlock(q, k, d, row, corner, y, e, stage + panel, end));
    after1 = f32x4.mul(after1, keyBlock(q + 16, k + 16, d + 16, row, corner, y + 16, e + 16, stage + panel + 16, end));
  }
}

/** One block of finishKeys, 4 channels; returns the decay through the block. */
function keyBlock(
  q: usize, k: usize, d: usize, row: usize, dA: usize, y: usize, e: usize, own: usize, end: usize,
): v128 {
  const row2 = row << 1, row3 = row2 + row;
  const d0 = v128.load(d), d1 = v128.load(d + row), d2 = v128.load(d + row2), d3 = v128.load(d + row3);
  const q0 = v128.load(q), q1 = v128.load(q + row), q2 = v128.load(q + row2), q3 = v128.load(q + row3);
  const u1 = f32x4.mul(d2, d3), u0 = f32x4.mul(d1, u1);
  const y3 = v128.load(y, 96);
  let t = f32x4.mul(v128.load_splat<f32>(dA + 3 * SQUARE_ROW, 8), q3);
  const y2 = madd(d3, t, f32x4.mul(v128.load(y, 64), d3));
  t = f32x4.mul(v128.load_splat<f32>(dA + 3 * SQUARE_ROW, 4), q3);
  t = madd(d3, t, f32x4.mul(v128.load_splat<f32>(dA + 2 * SQUARE_ROW, 4), q2));
  const y1 = madd(d2, t, f32x4.mul(v128.load(y, 32), u1));
  t = f32x4.mul(v128.load_splat<f32>(dA + 3 * SQUARE_ROW), q3);
  t = madd(d3, t, f32x4.mul(v128.load_splat<f32>(dA + 2 * SQUARE_ROW), q2));
  t = madd(d2, t, f32x4.mul(v128.load_splat<f32>(dA + SQUARE_ROW), q1));
  const y0 = madd(d1, t, f32x4.mul(v128.load(y), u0));
  v128.store(e, f32x4.sub(v128.load(e), f32x4.mul(v128.load(k), y0)));
  v128.store(e, f32x4.sub(v128.load(e, 32), f32x4.mul(v128.load(k + row), y1)), 32);
  v128.store(e, f32x4.sub(v128.load(e, 64), f32x4.mul(v128.load(k + row2), y2)), 64);
  v128.store(e, f32x4.sub(v128.load(e, 96), f32x4.mul(v128.load(k + row3), y3)), 96);
  v128.store(y, madd(v128.load_splat<f32>(dA), q0, y0));
  v128.store(y, madd(v128.load_splat<f32>(dA + SQUARE_ROW, 4), q1, y1), 32);
  v128.store(y, madd(v128.load_splat<f32>(dA + 2 * SQUARE_ROW, 8), q2, y2), 64);
  v128.store(y, madd(v128.load_splat<f32>(dA + 3 * SQUARE_ROW, 12), q3, y3), 96);
  // Earlier blocks see these queries, and the later ones, decayed from the start of this block.
  const p1 = f32x4.mul(d0, d1), p2 = f32x4.mul(p1, d2), p3 = f32x4.mul(p2, d3);
  for (let p = own + 128; p < end; p += 32) v128.store(p, f32x4.mul(v128.load(p), p3));
  v128.store(own, f32x4.mul(q0, d0));
  v128.store(own, f32x4.mul(q1, p1), 32);
  v128.store(own, f32x4.mul(q2, p2), 64);
  v128.store(own, f32x4.mul(q3, p3), 96);
  return p3;
}

/** Per-head gates: dA becomes dA * E below the diagonal, the diagonal moves aside, the sums over channels start at 0. */
function startHead(s: usize, tiles: i32): void {
  const dA = upstreamScoresAt(s), diagonal = headDecaysAt(s) + 192;
  decayPairs(dA, pairsAt(s), tiles << 2, tiles << 2);
  for (let i: usize = 0; i < <usize>(tiles << 2); i++) {
    store<f32>(diagonal + (i << 2), load<f32>(dA + i * (SQUARE_ROW + 4)));
    store<f32>(dA + i * (SQUARE_ROW + 4), 0);
  }
  memory.fill(panelAt(s, 6), 0, PANEL);
}

/** Per-head gates: completes dq (x) and dk (y) in 8 channels; adds q * dq - k * dk and S * dS to the sums of panel 6. */
function finishHead(s: usize, Kp: i32, col: i32, tiles: i32, scale: f32, state: usize, dSt: usize, Vp: i32): void {
  const row = <usize>Kp << 2, at = <usize>col << 2, dA = upstreamScoresAt(s), head = headDecaysAt(s), stage = panelAt(s, 4);
  let x = panelAt(s, 2), y = panelAt(s, 3), q = qAt(s, Kp) + at, k = kAt(s, Kp) + at, sums = panelAt(s, 6);
  scaleRows(x, head + 64, x, PANEL_ROW);
  packPanel(k, row, C, Kp - col, 0, stage, C);
  for (let a: usize = 0; a < <usize>tiles; a++)
    tileProduct(dA + a * (4 * SQUARE_ROW), SQUARE_ROW, stage, <i32>(a + 1) << 2, 0, 0, 0, 0, x + a * 128, PANEL_ROW, true);
  packPanel(q, row, C, Kp - col, 0, stage, C);
  panelUpdate(dA, SQUARE_ROW, stage, tiles << 2, y, y, tiles << 2, head + 128, 0, 0, 0);
  const f = f32x4.splat(scale);
  for (let r = 0, diagonal = head + 192; r < tiles << 2; r++, diagonal += 4, x += 32, y += 32, q += row, k += row, sums += 16) {
    const d = v128.load_splat<f32>(diagonal);
    let sum = v128.load(sums);
    for (let p: usize = 0; p < 32; p += 16) {
      const qr = v128.load(q + p), kr = v128.load(k + p), dx = v128.load(x + p), dy = v128.load(y + p);
      sum = f32x4.sub(madd(qr, dx, sum), f32x4.mul(kr, dy));
      v128.store(x + p, f32x4.mul(f, madd(d, kr, dx)));
      v128.store(y + p, madd(d, qr, dy));
    }
    v128.store(sums, sum);
  }
  const base = panelAt(s, 6) + 256;
  let sum0 = f32x4.splat(0), sum1 = sum0;
  for (const end = state + (<usize>Vp << 5); state < end; state += 32, dSt += 32) {
    sum0 = madd(v128.load(state), v128.load(dSt), sum0);
    sum1 = madd(v128.load(state, 16), v128.load(dSt, 16), sum1);
  }
  v128.store(base, f32x4.add(v128.load(base), f32x4.add(sum0, sum1)));
}

/** dv = A^T dO + kc dS, then dS = chunkDecay * dS + qg^T dO (and dS^T), 8 columns of v at a time. */
function valuesBwd(dO: usize, dv: usize, stride: usize, n: i32, K: i32, V: i32, dS: usize, dSt: usize, s: usize): void {
  const Kp = pad8(K), Vp = pad8(V), row = <usize>Kp << 2, qg = qgAt(s, Kp), kc = kcAt(s, Kp), A = scoresAt(s);
  const upstream = panelAt(s, 0), tile = panelAt(s, 1), rows = (n + 3) & ~3;
  for (let col = 0; col < V; col += 8, dS += <usize>Kp << 5) {
    packPanel(dO, stride, n, V, col, upstream, C);
    for (let r = 0; r < n; r += 4) {
      const whole = V - col >= 8 && n - r >= 4, at = <usize>r;
      const out = dv + at * stride, c = whole ? out + (<usize>col << 2) : tile;
      tileProduct(
        kc + at * row, row, dS, Kp, A + at * (SQUARE_ROW + 4), SQUARE_ROW, upstream + (at << 5), rows - r,
        c, whole ? stride : PANEL_ROW, false,
      );
      if (!whole) unpackPanel(tile, PANEL_ROW, out, stride, min(4, n - r), V, col);
    }
    panelUpdate(qg, row, upstream, rows, dS, dS, Kp, chunkDecayAt(s, Kp), 0, dSt + (<usize>col << 5), <usize>Vp << 5);
  }
}
