/** Between tensors and transforms: tokens [T, H] lie as they are needed, taps [H, T] are transposed on the way. Missing channels are 0. */
import { storeTransposed } from '../wasm/lib/product.as';
import { loadN, storeN } from '../wasm/lib/tail.as';

/** T tokens of 8 channels at x (or of the `left` last), then zeros up to N. */
export function loadTokens(x: usize, data: usize, T: i32, H: i32, N: i32, left: i32): void {
  const pitch = <usize>H << 2, end = data + (<usize>T << 5);
  memory.fill(end, 0, <usize>(N - T) << 5);
  if (left >= 8) {
    for (; data < end; data += 32, x += pitch) {
      v128.store(data, v128.load(x));
      v128.store(data, v128.load(x, 16), 16);
    }
    return;
  }
  for (; data < end; data += 32, x += pitch) {
    v128.store(data, loadN(x, left));
    v128.store(data, left > 4 ? loadN(x + 16, left - 4) : f32x4.splat(0), 16);
  }
}

export function storeTokens(data: usize, y: usize, T: i32, H: i32, left: i32): void {
  const pitch = <usize>H << 2, end = data + (<usize>T << 5);
  if (left >= 8) {
    for (; data < end; data += 32, y += pitch) {
      v128.store(y, v128.load(data));
      v128.store(y, v128.load(data, 16), 16);
    }
    return;
  }
  for (; data < end; data += 32, y += pitch) {
    storeN(y, v128.load(data), left);
    if (left > 4) storeN(y + 16, v128.load(data, 16), left - 4);
  }
}

/** Taps of channels c .. c + 7 as one circle of N: kernel from 0 on, `reverse` from N - 1 backwards (its last tap meets no token). */
export function loadTaps(kernel: usize, reverse: usize, data: usize, c: i32, T: i32, H: i32, N: i32): void {
  memory.fill(data, 0, <usize>N << 5);
  for (let half = 0; half < 8; half += 4, data += 16) {
    const first = c + half, channels = min(4, H - first), from = <usize>(first * T) << 2;
    if (channels <= 0) return;
    loadRows(kernel + from, data, 32, T, T, channels);
    if (reverse) loadRows(reverse + from, data + (<usize>(N - 1) << 5), -32, T - 1, T, channels);
  }
}

/** `count` taps of up to 4 rows of T to the lanes of every `step` bytes. */
function loadRows(x: usize, data: usize, step: isize, count: i32, T: i32, channels: i32): void {
  const pitch = <usize>T << 2;
  let t = 0;
  if (channels == 4)
    for (; t + 4 <= count; t += 4, x += 16, data += step << 2)
      storeTransposed(data, step, v128.load(x), v128.load(x + pitch), v128.load(x + 2 * pitch), v128.load(x + 3 * pitch));
  for (; t < count; t++, x += 4, data += step)
    for (let i = 0; i < channels; i++) store<f32>(data + (<usize>i << 2), load<f32>(x + <usize>i * pitch));
}

/** The inverse of loadTaps; the last tap of gReverse is 0. */
export function storeTaps(data: usize, gKernel: usize, gReverse: usize, c: i32, T: i32, H: i32, N: i32): void {
  for (let half = 0; half < 8; half += 4, data += 16) {
    const first = c + half, channels = min(4, H - first), from = <usize>(first * T) << 2;
    if (channels <= 0) return;
    storeRows(data, 32, gKernel + from, T, T, channels);
    if (gReverse) {
      storeRows(data + (<usize>(N - 1) << 5), -32, gReverse + from, T - 1, T, channels);
      for (let i = 1; i <= channels; i++) store<f32>(gReverse + from + (<usize>(i * T - 1) << 2), 0);
    }
  }
}

function storeRows(data: usize, step: isize, y: usize, count: i32, T: i32, channels: i32): void {
  const pitch = <usize>T << 2;
  let t = 0;
  if (channels == 4)
    for (; t + 4 <= count; t += 4, y += 16, data += step << 2)
      storeTransposed(y, pitch, v128.load(data), v128.load(data + step), v128.load(data + 2 * step), v128.load(data + 3 * step));
  for (; t < count; t++, y += 4, data += step)
    for (let i = 0; i < channels; i++) store<f32>(y + <usize>i * pitch, load<f32>(data + (<usize>i << 2)));
}
