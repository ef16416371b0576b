/** The environment variables of a contestant's process. */

/** Settings that slow OpenBLAS down where they are set for other reasons; ours with native products and PyTorch both run as fast as they can. */
const UNWANTED = ['OPENBLAS_CORETYPE', 'OPENBLAS_L2_SIZE'];

export function environment(): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !UNWANTED.includes(name)));
}
