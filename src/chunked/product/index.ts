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
  withProduct(ctx, product, (run) => run(a, b, bias, c));
}

/** Several products of the same sizes with one piece of scratch memory. */
export function withProduct(
  ctx: WasmContext,
  { M, N, K, transposeA = false, transposeB = false }: Product,
  body: (run: (a: number, b: number, bias: number, c: number) => void) => void,
): void {
  const flags = [Number(transposeA), Number(transposeB)] as const;
  ctx.scratch(ctx.kernels.productScratch(M, N, K), (scratch) =>
    body((a, b, bias, c) => ctx.kernels.product(a, flags[0], b, flags[1], bias, c, M, N, K, scratch)),
  );
}
