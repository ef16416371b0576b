/**
 * Convolution as long as the sequence, by FFT (README.md here): u [B, T, H] with a kernel [H, T] for each channel. Eight channels go together: the first four as real
 * parts, the others as imaginary parts of one complex transform of four lanes.
 */
import { backwardFft, backwardToHalf, forwardFft, forwardOfHalf, makeTwiddles } from './fft.as';
import { loadTaps, loadTokens, storeTaps, storeTokens } from './load.as';
import { applyAndCorrelate, applySpectra, kernelSpectra } from './spectra.as';

export { makeTwiddles as longConvolutionTwiddles };

/** y [B, T, H]. `reverse` (0: none) is the kernel of the other direction. Scratch: twiddles (made), data of 32 N bytes, spectra of 32 N + 64. */
export function longConvolutionFwd(
  u: usize, kernel: usize, reverse: usize, y: usize, B: i32, T: i32, H: i32, N: i32, table: usize, data: usize, spectra: usize,
): void {
  const row = <usize>(T * H) << 2;
  for (let c = 0; c < H; c += 8) {
    transformTaps(kernel, reverse, data, c, T, H, N, table);
    kernelSpectra(data, spectra, N);
    const at = <usize>c << 2;
    for (let b: usize = 0; b < <usize>B; b++) {
      transformTokens(u + b * row + at, data, T, H, N, H - c, table);
      applySpectra(data, spectra, N);
      tokensBack(data, y + b * row + at, T, H, N, H - c, table);
    }
  }
}

/** gU [B, T, H], gKernel and (unless 0) gReverse [H, T] from gY. Scratch as forward, and inputs, sums of 32 N bytes each. */
export function longConvolutionBwd(
  u: usize, kernel: usize, reverse: usize, gY: usize, gU: usize, gKernel: usize, gReverse: usize,
  B: i32, T: i32, H: i32, N: i32, table: usize, data: usize, spectra: usize, inputs: usize, sums: usize,
): void {
  const row = <usize>(T * H) << 2;
  for (let c = 0; c < H; c += 8) {
    transformTaps(kernel, reverse, data, c, T, H, N, table);
    kernelSpectra(data, spectra, N);
    memory.fill(sums, 0, <usize>N << 5);
    const at = <usize>c << 2;
    for (let b: usize = 0; b < <usize>B; b++) {
      transformTokens(u + b * row + at, inputs, T, H, N, H - c, table);
      transformTokens(gY + b * row + at, data, T, H, N, H - c, table);
      applyAndCorrelate(data, inputs, spectra, sums, N);
      tokensBack(data, gU + b * row + at, T, H, N, H - c, table);
    }
    if (gReverse || N < 8) backwardFft(sums, N, table);
    else backwardToHalf(sums, N, table, sums, 32, N >> 1, 8);
    storeTaps(sums, gKernel, gReverse, c, T, H, N);
  }
}

/** Spectra of the taps of 8 channels. */
function transformTaps(kernel: usize, reverse: usize, data: usize, c: i32, T: i32, H: i32, N: i32, table: usize): void {
  loadTaps(kernel, reverse, data, c, T, H, N);
  if (reverse || N < 8) forwardFft(data, N, table);
  else forwardOfHalf(data, 32, N >> 1, 8, data, N, table);
}

/** Spectra of T tokens, and the way back; the first and the last pass meet the zeros behind the tokens, and read and write the tensors themselves. */
function transformTokens(x: usize, data: usize, T: i32, H: i32, N: i32, left: i32, table: usize): void {
  if (N >= 8) {
    forwardOfHalf(x, <usize>H << 2, T, left, data, N, table);
  } else {
    loadTokens(x, data, T, H, N, left);
    forwardFft(data, N, table);
  }
}

function tokensBack(data: usize, y: usize, T: i32, H: i32, N: i32, left: i32, table: usize): void {
  if (N >= 8) {
    backwardToHalf(data, N, table, y, <usize>H << 2, T, left);
  } else {
    backwardFft(data, N, table);
    storeTokens(data, y, T, H, left);
  }
}
