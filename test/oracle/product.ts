/** Matrix products in float64 on flat row-major arrays. Uses nothing of `src`. */

type Numbers = ArrayLike<number>;

/**
 * C = op(A) op(B), where op transposes when its flag is set; C is [M, N] and K is summed over. `terms[i]` is the same sum over
 * absolute values: the rounding error of C[i] is relative to it.
 */
export function productOracle(
  a: Numbers,
  b: Numbers,
  { M, N, K, transposeA = false, transposeB = false }: ProductSizes,
): { c: Float64Array; terms: Float64Array } {
  const [c, terms] = [new Float64Array(M * N), new Float64Array(M * N)];
  const [aRow, aCol] = transposeA ? [1, M] : [K, 1];
  const [bRow, bCol] = transposeB ? [1, K] : [N, 1];
  for (let m = 0; m < M; m++)
    for (let n = 0; n < N; n++) {
      let [sum, size] = [0, 0];
      for (let k = 0; k < K; k++) {
        const term = a[m * aRow + k * aCol] * b[k * bRow + n * bCol];
        sum += term;
        size += Math.abs(term);
      }
      c[m * N + n] = sum;
      terms[m * N + n] = size;
    }
  return { c, terms };
}

export interface ProductSizes {
  M: number;
  N: number;
  K: number;
  transposeA?: boolean;
  transposeB?: boolean;
}

/** y = x W^T + bias for x [N, I], weight [O, I], bias [O], and its gradients under dy [N, O]. */
export function linearOracle(
  { x, weight, bias }: { x: Numbers; weight: Numbers; bias?: Numbers },
  { N, I, O }: { N: number; I: number; O: number },
  dy: Numbers,
) {
  const y = productOracle(x, weight, { M: N, N: O, K: I, transposeB: true }).c;
  const dBias = new Float64Array(O);
  for (let i = 0; i < N * O; i++) {
    y[i] += bias?.[i % O] ?? 0;
    dBias[i % O] += dy[i];
  }
  const dx = productOracle(dy, weight, { M: N, N: I, K: O }).c;
  const dWeight = productOracle(dy, x, { M: O, N: I, K: N, transposeA: true }).c;
  return { y, dx, dWeight, dBias };
}
