/** The product of two matrices in the wasm backend's memory: by the native addon where it is in use, else by kernel.as.ts. */
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

export interface Sum extends Product {
  /** Add the product to what C holds, instead of a bias; default false. */
  add?: boolean;
}

/** C [M, N] = op(A) op(B) + bias, by byte offsets of dense row-major float32 matrices; `bias` [N] is 0 for none. */
export function multiply(ctx: WasmContext, a: number, b: number, bias: number, c: number, product: Sum): void {
  const { M, N, K, transposeA = false, transposeB = false, add = false } = product;
  const { native } = ctx;
  const into = (to: number) => native?.multiply(ctx.memoryForNative(), a, b, to, bias, M, N, K, transposeA, transposeB);
  if (!native || isSkinny(M)) multiplyByKernel(ctx, [[a, b, c]], bias, product);
  else if (!add) into(c);
  else
    ctx.scratch(4 * M * N, (part) => {
      into(part);
      ctx.kernels.productAdd(part, c, M * N);
    });
}

/** The same for many matrices [a, b, c] of the same sizes, with one bias. */
export function multiplyAll(
  ctx: WasmContext,
  matrices: [number, number, number][],
  bias: number,
  product: Product,
): void {
  const { M, N, K, transposeA = false, transposeB = false } = product;
  const { native } = ctx;
  if (native && !isSkinny(M))
    native.multiplyAll(ctx.memoryForNative(), Uint32Array.from(matrices.flat()), bias, M, N, K, transposeA, transposeB);
  else multiplyByKernel(ctx, matrices, bias, product);
}

/** BLAS packs all of B for a few rows of A, which takes longer than our kernel's whole product; a single row it reads B for, once. */
const isSkinny = (M: number) => M > 1 && M <= 4;

/** The same by the wasm kernel, whatever else is there. */
export function multiplyByKernel(
  ctx: WasmContext,
  matrices: [number, number, number][],
  bias: number,
  { M, N, K, transposeA = false, transposeB = false, add = false }: Sum,
): void {
  ctx.scratch(ctx.kernels.productScratch(M, N, K), (scratch) => {
    for (const [a, b, c] of matrices)
      ctx.kernels.product(a, Number(transposeA), b, Number(transposeB), bias, c, M, N, K, Number(add), scratch);
  });
}
