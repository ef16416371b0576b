/**
 * Convolution as long as the sequence, by FFT (README.md here): u [B, T, H] with a kernel [H, T] for each channel. Eight channels go together: the first four as real
 * parts, the others as imaginary parts of one complex transform of four lanes.
 */
import { backwardFft, forwardFft, makeTwiddles } from './fft.as';
import { loadTaps, loadTokens, storeTaps, storeTokens } from './load.as';
import { applyAndCorrelate, applySpectra, kernelSpectra } from './spectra.as';

export { makeTwiddles as longConvolutionTwiddles };

/** y [B, T, H]. `reverse` (0: none) is the kernel of the other direction. Scratch: twiddles (made), data of 32 N bytes, spectra of 32 N + 64. */
export function longConvolutionFwd(
  u: usize, kernel: usize, reverse: usize, y: usize, B: i32, T: i32, H: i32, N: i32, table: usize, data: usize, spectra: usize,
): void {
  const row = <usize>(T * H) << 2;
  for (let c = 0; c < H; c += 8) {
    loadTaps(kernel, reverse, data, c, T, H, N);
    forwardFft(data, N, table);
    kernelSpectra(data, spectra, N);
    const at = <usize>c << 2;
    for (let b: usize = 0; b < <usize>B; b++) {
      loadTokens(u + b * row + at, data, T, H, N, H - c);
      forwardFft(data, N, table);
      applySpectra(data, spectra, N);
      backwardFft(data, N, table);
      storeTokens(data, y + b * row + at, T, H, H - c);
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
    loadTaps(kernel, reverse, data, c, T, H, N);
    forwardFft(data, N, table);
    kernelSpectra(data, spectra, N);
    memory.fill(sums, 0, <usize>N << 5);
    const at = <usize>c << 2;
    for (let b: usize = 0; b < <usize>B; b++) {
      loadTokens(u + b * row + at, inputs, T, H, N, H - c);
      forwardFft(inputs, N, table);
      loadTokens(gY + b * row + at, data, T, H, N, H - c);
      forwardFft(data, N, table);
      applyAndCorrelate(data, inputs, spectra, sums, N);
      backwardFft(data, N, table);
      storeTokens(data, gU + b * row + at, T, H, H - c);
    }
    backwardFft(sums, N, table);
    storeTaps(sums, gKernel, gReverse, c, T, H, N);
  }
}
