/** The environment variables of a contestant's process. */

/** Settings that slow OpenBLAS down where they are set for other reasons; ours with native products and PyTorch both run as fast as they can. */
const UNWANTED = ['OPENBLAS_CORETYPE', 'OPENBLAS_L2_SIZE'];

export function environment(): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !UNWANTED.includes(name)));
}

/** Matrix products by our own kernels, also where the native addon is built. */
export const WASM_ONLY = { SEQMIX_NATIVE: 'off' };
/** Matrix products by the native addon; an error that says why where it cannot be had. */
export const NATIVE = { SEQMIX_NATIVE: 'on' };
