/** Tokens of up to 8 channels between tensors [tokens, H] and scratch [8, R, Q], where each sequence starts a chunk. */
import { storeTransposed } from '../wasm/lib/product.as';
import { loadN, storeN } from '../wasm/lib/tail.as';
import { GROUP, tokenBytes } from './plan.as';

/** Chunks of all sequences together. */
export function chunksOf(offsets: usize, N: i32, Q: i32): i32 {
  let R = 0;
  for (let n = 0; n < N; n++, offsets += 4) R += (load<i32>(offsets, 4) - load<i32>(offsets) + Q - 1) / Q;
  return R;
}

/** Packs columns h .. h + n - 1 of x [tokens, H]; what is past the end of a sequence is 0. */
export function packTokens(x: usize, H: i32, h: i32, n: i32, offsets: usize, N: i32, R: i32, Q: i32, to: usize): void {
  const stride = <usize>H << 2, channel = tokenBytes(R, Q);
  x += <usize>h << 2;
  for (let i = 0; i < N; i++, offsets += 4) {
    const T = load<i32>(offsets, 4) - load<i32>(offsets), slots = (T + Q - 1) / Q * Q;
    for (let t = 0; t < T; t += 4, x += stride << 2, to += 16) {
      const rows = min(4, T - t);
      for (let g = 0; g < n; g += 4) packSquare(x + (<usize>g << 2), stride, rows, n - g, to + <usize>g * channel, channel);
    }
    x -= <usize>((T + 3 & ~3) - T) * stride;
    const whole = T + 3 & ~3;
    for (let t = whole; t < slots; t += 4, to += 16)
      for (let g = 0; g < n; g++) v128.store(to + <usize>g * channel, f32x4.splat(0));
  }
}

/** Four tokens (or `rows`) of four channels (or `left`), transposed. */
// @ts-ignore: decorator
@inline
function packSquare(x: usize, stride: usize, rows: i32, left: i32, to: usize, channel: usize): void {
  const zero = f32x4.splat(0), n = min(4, left);
  const a = loadN(x, n);
  const b = rows > 1 ? loadN(x + stride, n) : zero;
  const c = rows > 2 ? loadN(x + 2 * stride, n) : zero;
  const d = rows > 3 ? loadN(x + 3 * stride, n) : zero;
  storeTransposed(to, channel, a, b, c, d); // there is room for all 8 channels
}

/** The inverse of packTokens. */
export function unpackTokens(from: usize, H: i32, h: i32, n: i32, offsets: usize, N: i32, R: i32, Q: i32, x: usize): void {
  const stride = <usize>H << 2, channel = tokenBytes(R, Q);
  x += <usize>h << 2;
  for (let i = 0; i < N; i++, offsets += 4) {
    const T = load<i32>(offsets, 4) - load<i32>(offsets), slots = (T + Q - 1) / Q * Q;
    for (let t = 0; t < T; t += 4) {
      const rows = min(4, T - t);
      for (let g = 0; g < n; g += 4)
        unpackSquare(from + (<usize>t << 2) + <usize>g * channel, channel, rows, min(4, n - g), x + (<usize>g << 2), stride);
      x += <usize>rows * stride;
    }
    from += <usize>slots << 2;
  }
}

// @ts-ignore: decorator
@inline
function unpackSquare(from: usize, channel: usize, rows: i32, n: i32, x: usize, stride: usize): void {
  const a = v128.load(from), b = v128.load(from + channel), c = v128.load(from + 2 * channel), d = v128.load(from + 3 * channel);
  const p = v128.shuffle<f32>(a, b, 0, 4, 1, 5), q = v128.shuffle<f32>(c, d, 0, 4, 1, 5);
  const r = v128.shuffle<f32>(a, b, 2, 6, 3, 7), s = v128.shuffle<f32>(c, d, 2, 6, 3, 7);
  storeN(x, v128.shuffle<f32>(p, q, 0, 1, 4, 5), n);
  if (rows > 1) storeN(x + stride, v128.shuffle<f32>(p, q, 2, 3, 6, 7), n);
  if (rows > 2) storeN(x + 2 * stride, v128.shuffle<f32>(r, s, 0, 1, 4, 5), n);
  if (rows > 3) storeN(x + 3 * stride, v128.shuffle<f32>(r, s, 2, 3, 6, 7), n);
}

/** Moves the tokens of each sequence's last chunk of a channel to its end (`toEnd`), zeros before them, or back. */
export function alignLast(tokens: usize, offsets: usize, N: i32, Q: i32, toEnd: bool): void {
  for (let n = 0; n < N; n++, offsets += 4) {
    const T = load<i32>(offsets, 4) - load<i32>(offsets), chunks = (T + Q - 1) / Q, length = T - (chunks - 1) * Q;
    tokens += <usize>(chunks * Q) << 2;
    if (length == Q) continue;
    const row = tokens - (<usize>Q << 2), end = tokens - (<usize>length << 2), bytes = <usize>length << 2;
    memory.copy(toEnd ? end : row, toEnd ? row : end, bytes);
    memory.fill(toEnd ? row : row + bytes, 0, (<usize>Q << 2) - bytes);
  }
}
