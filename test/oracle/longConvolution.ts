/** The long convolution in float64 from its sum, with its gradients; nothing of `src` is used. */
type Numbers = ArrayLike<number>;

/** u, gY [B, T, H], kernel, kernelReverse [H, T] as flat arrays; gradients of sum gY y. */
export function longConvolutionOracle(
  { u, kernel, kernelReverse }: { u: Numbers; kernel: Numbers; kernelReverse?: Numbers },
  { B, T, H }: { B: number; T: number; H: number },
  gY: Numbers,
) {
  const [y, gU] = [new Float64Array(B * T * H), new Float64Array(B * T * H)];
  const [gKernel, gKernelReverse] = [new Float64Array(H * T), new Float64Array(H * T)];
  for (let b = 0; b < B; b++)
    for (let h = 0; h < H; h++)
      for (let t = 0; t < T; t++)
        for (let s = 0; s < T; s++) {
          const [taps, grads, l] = s <= t ? [kernel, gKernel, t - s] : [kernelReverse, gKernelReverse, s - t - 1];
          if (!taps) continue;
          const [to, from, tap] = [(b * T + t) * H + h, (b * T + s) * H + h, h * T + l];
          y[to] += taps[tap] * u[from];
          gU[from] += taps[tap] * gY[to];
          grads[tap] += gY[to] * u[from];
        }
  return { y, gU, gKernel, gKernelReverse };
}
