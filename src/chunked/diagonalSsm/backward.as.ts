/** The backward pass: nothing is kept from the forward pass; a channel's states are made again (README.md, section 4). */
import { madd } from '../wasm/lib/math.as';
import { tileProduct } from '../wasm/lib/product.as';
import { product, statesFwd } from './forward.as';
import {
  bbarAt, cAt, constantBytes, GROUP, localAt, pad4, powersAt, rowBytes, stepsAt, sumsAt, toModesBytes, toTokensBytes, tokenBytes,
} from './plan.as';
import { constants, loadModes, rowProduct, rowScaled, storeModes, toModes, toTokens } from './tables.as';
import { alignLast, chunksOf, packTokens, unpackTokens } from './tokens.as';

/** Bytes of scratch for chunks of Q tokens, R of them in all sequences together. */
export function diagonalSsmBwdScratch(R: i32, M: i32, Q: i32): i32 {
  const rows = pad4(R);
  return <i32>(
    constantBytes(M, Q) + 4 * toModesBytes(M, Q) + toTokensBytes(M, Q) + 3 * <usize>GROUP * tokenBytes(rows, Q) + 5 * <usize>rows * rowBytes(M)
  );
}

/**
 * Gradients on every input. dO and dFinalState as o and finalState (0: none); those on b are summed over the channels that share it, so db
 * is cleared first; dd and dInitialState may be 0.
 */
export function diagonalSsmBwd(
  u: usize, zeta: usize, psi: usize, b: usize, c: usize, d: usize, initialState: usize, dO: usize, dFinalState: usize,
  du: usize, dZeta: usize, dPsi: usize, db: usize, dc: usize, dd: usize, dInitialState: usize,
  offsets: usize, N: i32, H: i32, M: i32, copies: i32, factor: f32, Q: i32, s: usize,
): void {
  const chunks = chunksOf(offsets, N, Q), R = pad4(chunks), channel = tokenBytes(R, Q), mode = <usize>M << 3, row = rowBytes(M), matrix = toModesBytes(M, Q);
  const into = s + constantBytes(M, Q), back = into + 4 * matrix, tokens = back + toTokensBytes(M, Q);
  const upstream = tokens + <usize>GROUP * channel, gradients = upstream + <usize>GROUP * channel, rows = gradients + <usize>GROUP * channel;
  memory.fill(db, 0, <usize>copies * mode);
  for (let h = 0; h < H; h += GROUP) {
    const n = min(GROUP, H - h);
    packTokens(u, H, h, n, offsets, N, R, Q, tokens);
    packTokens(dO, H, h, n, offsets, N, R, Q, upstream);
    memory.fill(gradients, 0, <usize>n * channel);
    for (let i = h; i < h + n; i++) {
      const at = <usize>i * mode, skip = <usize>i << 2, place = <usize>(i - h) * channel;
      const x = tokens + place, y = upstream + place, shared = <usize>(i % copies) * mode;
      constants(zeta + at, psi + at, b + shared, c + at, d ? load<f32>(d + skip) : 0, factor, M, Q, s);
      toModes(s, M, Q, true, false, into);
      toModes(s, M, Q, true, true, into + matrix);
      toModes(s, M, Q, false, false, into + 2 * matrix);
      toModes(s, M, Q, false, true, into + 3 * matrix);
      toTokens(s, M, Q, true, back);
      modeGradients(
        s, M, Q, offsets, N, H, R, initialState ? initialState + at : 0, dFinalState ? dFinalState + at : 0, dInitialState ? dInitialState + at : 0,
        x, y, gradients + place, into, back, rows,
      );
      expandOver(rows + 3 * <usize>R * row, y, R, M, Q, back, gradients + place);
      localGradients(s, M, Q, chunks, x, y);
      finish(s, M, Q, factor);
      if (dd) store<f32>(dd + skip, load<f32>(localAt(s, M, Q) + (<usize>Q << 2)));
      storeModes(sumsAt(s, M, 0), M, dZeta + at);
      storeModes(sumsAt(s, M, 2), M, dc + at);
      storeInputs(s, M, psi + at, b + shared, dPsi + at, db + shared);
    }
    unpackTokens(gradients, H, h, n, offsets, N, R, Q, du);
  }
}

/** to [R, Q] += modes [R, W] and tokens [R, Q] times panels [W + Q, Q]. */
function expandOver(modes: usize, tokens: usize, R: i32, M: i32, Q: i32, panels: usize, to: usize): void {
  const row = rowBytes(M), W = <i32>(row >> 2), line = <usize>Q << 2, panel = <usize>(W + Q) << 5;
  for (let w: usize = 0; w < line; w += 32, panels += panel) {
    const local = panels + (<usize>W << 5);
    for (let r: usize = 0; r < <usize>R; r += 4)
      tileProduct(modes + r * row, row, panels, W, tokens + r * line, line, local, Q, to + r * line + w, line, true);
  }
}

/**
 * The states again, then from the last chunk to the first the gradients on them, and what they give. Sums, rows of modes: 0 gradient on zeta, 1
 * that on bbar, 2 on c, 3 on zeta by the output weights. Leaves the gradients on the states after all chunks in the fourth block of `rows`,
 * zeros for the last of a sequence if it is not whole: its gradient on u goes to `gradients`.
 */
function modeGradients(
  s: usize, M: i32, Q: i32, offsets: usize, N: i32, H: i32, R: i32, initial: usize, upstreamState: usize, gradientState: usize,
  x: usize, y: usize, gradients: usize, into: usize, back: usize, rows: usize,
): void {
  const row = rowBytes(M), W = <i32>(row >> 2), matrix = toModesBytes(M, Q), block = <usize>R * row, line = <usize>Q << 2;
  const states = rows, writes = rows + block, counted = rows + 2 * block, reads = rows + 3 * block, countedReads = rows + 4 * block;
  alignLast(x, offsets, N, Q, true);
  product(x, line, R, Q, into, W, writes);
  product(x, line, R, Q, into + matrix, W, counted);
  alignLast(x, offsets, N, Q, false);
  product(y, line, R, Q, into + 2 * matrix, W, reads);
  product(y, line, R, Q, into + 3 * matrix, W, countedReads);
  statesFwd(s, M, Q, offsets, N, H, initial, 0, states, writes);
  memory.fill(sumsAt(s, M, 0), 0, 4 * row);
  const between = <usize>H * (<usize>M << 3), upstream = sumsAt(s, M, 4);
  let at: usize = 0;
  for (let n = 0; n < N; n++, offsets += 4) {
    const T = load<i32>(offsets, 4) - load<i32>(offsets), chunks = (T + Q - 1) / Q, length = T - (chunks - 1) * Q;
    const last = at + <usize>(chunks - 1) * row;
    loadModes(upstreamState, M, upstream);
    for (let p: usize = 0; p < row >> 1; p += 16) sequenceBwd(s, M, Q, states + at + p, block, chunks, length, p);
    if (gradientState) {
      storeModes(upstream, M, gradientState);
      gradientState += between;
    }
    if (upstreamState) upstreamState += between;
    if (length < Q) {
      lastTokens(reads + last, back, W, Q, length, gradients + last / row * line);
      memory.fill(reads + last, 0, row);
    }
    at = last + row;
  }
}

/** Four modes of one sequence, `p` bytes into their rows; `x`: its first state, the other blocks of rows follow at `block`. */
function sequenceBwd(s: usize, M: i32, Q: i32, x: usize, block: usize, chunks: i32, length: i32, p: usize): void {
  const row = rowBytes(M), part = row >> 1, sums = sumsAt(s, M, 0) + p, upstream = sumsAt(s, M, 4) + p;
  const b = bbarAt(s, M) + p, br = v128.load(b), bi = v128.load(b + part), c = cAt(s, M) + p, cr = v128.load(c), ci = v128.load(c + part);
  let lr = v128.load(upstream), li = v128.load(upstream + part);
  let zr = v128.load(sums), zi = v128.load(sums + part);
  let wr = v128.load(sums + row), wi = v128.load(sums + row + part);
  let gr = v128.load(sums + 2 * row), gi = v128.load(sums + 2 * row + part);
  let hr = v128.load(sums + 3 * row), hi = v128.load(sums + 3 * row + part);
  x += <usize>(chunks - 1) * row;
  for (let k = 0; k < chunks; k++, x -= row) {
    const n = k == 0 ? length : Q, e = powersAt(s, M) + <usize>n * row + p, d = stepsAt(s, M, Q) + <usize>n * row + p;
    const writes = x + block, counted = writes + block, reads = counted + block, countedReads = reads + block;
    const xr = v128.load(x), xi = v128.load(x + part);
    // bbar: lambda conj(v)
    const vr = v128.load(writes), vi = v128.load(writes + part);
    wr = madd(lr, vr, madd(li, vi, wr));
    wi = f32x4.sub(madd(li, vr, wi), f32x4.mul(lr, vi));
    // zeta: lambda conj(n exp(n zeta) x + bbar v')
    const er = v128.load(e), ei = v128.load(e + part), f = f32x4.splat(<f32>n), ur = v128.load(counted), ui = v128.load(counted + part);
    const tr = madd(f, f32x4.sub(f32x4.mul(er, xr), f32x4.mul(ei, xi)), f32x4.sub(f32x4.mul(br, ur), f32x4.mul(bi, ui)));
    const ti = madd(f, madd(er, xi, f32x4.mul(ei, xr)), madd(br, ui, f32x4.mul(bi, ur)));
    zr = madd(lr, tr, madd(li, ti, zr));
    zi = f32x4.sub(madd(li, tr, zi), f32x4.mul(lr, ti));
    // c: conj(x) z, and zeta by it: conj(x) z'
    const yr = v128.load(reads), yi = v128.load(reads + part), qr = v128.load(countedReads), qi = v128.load(countedReads + part);
    gr = madd(xr, yr, madd(xi, yi, gr));
    gi = f32x4.sub(madd(xr, yi, gi), f32x4.mul(xi, yr));
    hr = madd(xr, qr, madd(xi, qi, hr));
    hi = f32x4.sub(madd(xr, qi, hi), f32x4.mul(xi, qr));
    v128.store(reads, lr);
    v128.store(reads + part, li);
    // lambda <- conj(c) z + lambda + conj(exp(n zeta) - 1) lambda
    const dr = v128.load(d), di = v128.load(d + part);
    const nr = f32x4.add(lr, madd(dr, lr, madd(di, li, madd(cr, yr, f32x4.mul(ci, yi)))));
    li = f32x4.add(li, f32x4.sub(madd(dr, li, madd(cr, yi, f32x4.neg(f32x4.mul(ci, yr)))), f32x4.mul(di, lr)));
    lr = nr;
  }
  v128.store(upstream, lr);
  v128.store(upstream + part, li);
  v128.store(sums, zr);
  v128.store(sums + part, zi);
  v128.store(sums + row, wr);
  v128.store(sums + row + part, wi);
  v128.store(sums + 2 * row, gr);
  v128.store(sums + 2 * row + part, gi);
  v128.store(sums + 3 * row, hr);
  v128.store(sums + 3 * row + part, hi);
}

/** Gradients on the `length` tokens of a chunk that is not whole, from that on the state after it: those tokens end where the panels end. */
function lastTokens(lambda: usize, back: usize, W: i32, Q: i32, length: i32, to: usize): void {
  for (let t = 0; t < length; t++, to += 4) {
    const column = t + Q - length;
    let cell = back + (<usize>(column >> 3) * <usize>(W + Q) << 5) + (<usize>(column & 7) << 2), sum: f32 = 0;
    for (let w = 0; w < W; w++, cell += 32) sum += load<f32>(lambda + (<usize>w << 2)) * load<f32>(cell);
    store<f32>(to, sum);
  }
}

/** The gradient on the local kernel: at lag l the sum of y_t x_{t-l} within all chunks; it stands after the kernel. */
function localGradients(s: usize, M: i32, Q: i32, chunks: i32, x: usize, y: usize): void {
  const line = <usize>Q << 2, sums = localAt(s, M, Q) + line, turned = sums + line;
  memory.fill(sums, 0, 3 * line);
  for (let r = 0; r < chunks; r++, x += line, y += line) {
    for (let t: usize = 0; t < line; t += 4) store<f32>(turned + line - 4 - t, load<f32>(x + t));
    for (let l: usize = 0; l < line; l += 16) {
      let sum = v128.load(sums + l);
      let from = turned + line - 4 + l;
      for (let t: usize = 0; t < line; t += 4, from -= 4) sum = madd(v128.load_splat<f32>(y + t), v128.load(from), sum);
      v128.store(sums + l, sum);
    }
  }
}

/** The sums with what the local kernel gives: c (in 2) and zeta (in 0) and bbar (in 1). */
function finish(s: usize, M: i32, Q: i32, factor: f32): void {
  const row = rowBytes(M), zeta = sumsAt(s, M, 0), bbar = sumsAt(s, M, 1), c = sumsAt(s, M, 2), read = sumsAt(s, M, 3);
  const plain = sumsAt(s, M, 4), counted = sumsAt(s, M, 5), weights = cAt(s, M), input = bbarAt(s, M);
  rowProduct(weights, read, zeta, M, true, 1, true);
  memory.fill(plain, 0, 2 * row);
  let gradient = localAt(s, M, Q) + (<usize>Q << 2), E = powersAt(s, M);
  for (let l = 0; l < Q; l++, gradient += 4, E += row) {
    const g = load<f32>(gradient), f = f32x4.splat(g), fl = f32x4.splat(g * <f32>l);
    for (let p: usize = 0; p < row; p += 16) {
      const e = v128.load(E + p);
      v128.store(plain + p, madd(f, e, v128.load(plain + p)));
      v128.store(counted + p, madd(fl, e, v128.load(counted + p)));
    }
  }
  conjugated(plain, M);
  conjugated(counted, M);
  rowProduct(weights, plain, bbar, M, true, 1, true);
  rowProduct(input, plain, c, M, true, 1, true);
  rowProduct(input, counted, counted, M, true, 1, false);
  rowProduct(weights, counted, zeta, M, true, 1, true);
  rowScaled(c, c, M, factor);
}

function conjugated(row: usize, M: i32): void {
  const part = rowBytes(M) >> 1;
  for (let p = row + part; p < row + 2 * part; p += 16) v128.store(p, f32x4.neg(v128.load(p)));
}

/** From the gradient on bbar = b psi those on psi, and on b, which is added. */
function storeInputs(s: usize, M: i32, psi: usize, b: usize, dPsi: usize, db: usize): void {
  const bbar = sumsAt(s, M, 1), value = sumsAt(s, M, 3), sum = sumsAt(s, M, 4);
  loadModes(b, M, value);
  rowProduct(value, bbar, value, M, true, 1, false);
  storeModes(value, M, dPsi);
  loadModes(psi, M, value);
  loadModes(db, M, sum);
  rowProduct(value, bbar, sum, M, true, 1, true);
  storeModes(sum, M, db);
}
