/** The matrix product of two tensors in the wasm backend's memory: shapes and memory; the arithmetic is in kernel.as.ts. */
import type { WasmContext } from '../wasm/runtime.js';

export interface Product {
  M: number;
  N: number;
  K: number;
  /** A is stored [K, M] instead of [M, K]. */
  transposeA?: boolean;
  /** B is stored [N, K] instead of [K, N]. */
  transposeB?: boolean;
}

/** C [M, N] = op(A) op(B) + bias, by byte offsets of dense row-major float32 matrices; `bias` [N] is 0 for none. */
export function multiply(ctx: WasmContext, a: number, b: number, bias: number, c: number, product: Product): void {
  multiplyAll(ctx, [[a, b, c]], bias, product);
}

/** The same for many matrices [a, b, c] of the same sizes, with one bias. */
export function multiplyAll(
  ctx: WasmContext,
  matrices: [number, number, number][],
  bias: number,
  { M, N, K, transposeA = false, transposeB = false }: Product,
): void {
  ctx.scratch(ctx.kernels.productScratch(M, N, K), (scratch) => {
    for (const [a, b, c] of matrices)
      ctx.kernels.product(a, Number(transposeA), b, Number(transposeB), bias, c, M, N, K, scratch);
  });
}
