/**
 * Matrix products by the system's BLAS (OpenBLAS, Accelerate) on the wasm backend's memory: an optional Node addon, built from
 * `native/` by `npm run build:native` or `npx seqmix build-native`. Where it is not there, our wasm kernels do it all.
 */
import type { NativeProduct } from '../chunked/wasm/runtime.js';

export type NativeOption = 'auto' | 'on' | 'off';

export const NATIVE_VARIABLE = 'SEQMIX_NATIVE';

/** What `native/addon.c` exports. */
export interface NativeAddon extends NativeProduct {
  /** Threads a product is shared out to; no effect with Accelerate. */
  setThreads(count: number): void;
}

/** Such as `OpenBLAS 0.3.21 Haswell`. */
export const libraryName = ({ config, core }: NativeProduct): string =>
  `${config.split(' ').slice(0, 2).join(' ')} ${core}`;

/** Relative to this file, in src/backend as in dist/backend. */
const ADDON = '../../native/build/Release/seqmix.node';
/** Two lines that the build writes last: the checksums of its sources and of the addon. */
const STAMP = '../../native/build/stamp';

/** As OpenBLAS is built at most. */
const MAX_THREADS = 1024;

const BUILD = 'run npx seqmix build-native (npm run build:native in a clone), which says what it needs';
const BUILD_ANEW = 'run npx seqmix build-native --force, which says what it needs';

/** The request: the option if given, else the environment variable SEQMIX_NATIVE, else `auto`. */
export function nativeRequest(option: NativeOption | undefined): NativeOption {
  const [value, source] = option
    ? [option, 'useBackend: native']
    : [globalThis.process?.env?.[NATIVE_VARIABLE] || 'auto', `environment variable ${NATIVE_VARIABLE}`];
  if (value === 'auto' || value === 'on' || value === 'off') return value;
  throw new RangeError(`${source} must be one of 'auto', 'on', 'off', got '${value}'`);
}

/**
 * The addon to install, set to so many threads. `auto` takes it where it is built and computes rightly, `off` never; `on` throws, with
 * the remedy, where `auto` would do without.
 */
export function chooseNative(option: NativeOption | undefined, threads = 1): NativeAddon | undefined {
  if (!Number.isInteger(threads) || threads < 1 || threads > MAX_THREADS)
    throw new RangeError(
      `useBackend: nativeThreads must be a whole number from 1 to ${MAX_THREADS}, got ${String(threads)}`,
    );
  const request = nativeRequest(option);
  if (request === 'off') return undefined;
  const addon = usableNative();
  if (typeof addon === 'string') {
    if (request === 'auto') return undefined;
    throw new Error(`useBackend: native is 'on' but ${addon}; or pass native: 'auto'`);
  }
  addon.setThreads(threads);
  threadsInUse = threads;
  return addon;
}

let threadsInUse = 1;

/** Threads for a native product, as last asked for here. */
export const nativeThreadsInUse = (): number => threadsInUse;

let known: NativeAddon | string | undefined;

/** The addon, loaded and checked once a process; a text that says why it cannot be used and what helps, where it cannot. */
export function usableNative(): NativeAddon | string {
  known ??= loadAndCheck();
  return known;
}

function loadAndCheck(): NativeAddon | string {
  const addon = load();
  return typeof addon === 'string' ? addon : (refusalOf(addon) ?? addon);
}

function load(): NativeAddon | string {
  // Asked of the process, not imported, and by a name in a variable: bundlers and browsers never see it.
  const require = globalThis.process?.getBuiltinModule?.('node:module')?.createRequire(import.meta.url);
  if (!require) return 'there is none outside Node';
  const damage = damageOf(new URL(ADDON, import.meta.url), new URL(STAMP, import.meta.url));
  if (damage) return damage;
  try {
    return withOneThread(() => require(ADDON) as NativeAddon);
  } catch (error) {
    const reason = (error as Error).message.split('\n')[0];
    return `it does not load (${reason}); ${BUILD_ANEW}`;
  }
}

/** Looked for before it is loaded: the loader of Linux ends the process (SIGBUS) at a file that is cut short. */
function damageOf(addon: URL, stamp: URL): string | undefined {
  const { existsSync, readFileSync } = process.getBuiltinModule('node:fs');
  if (!existsSync(addon)) return `it is not built here; ${BUILD}`;
  const [, built] = existsSync(stamp) ? readFileSync(stamp, 'utf8').split('\n') : [];
  const hash = process.getBuiltinModule('node:crypto').createHash('sha256').update(readFileSync(addon));
  return hash.digest('hex') === built ? undefined : `its file is damaged, or was never finished; ${BUILD_ANEW}`;
}

/** OpenBLAS starts a thread for each core when it is loaded, to have them ready, unless this variable says fewer. */
function withOneThread<R>(body: () => R): R {
  const { env } = process;
  if (env.OPENBLAS_NUM_THREADS !== undefined) return body();
  env.OPENBLAS_NUM_THREADS = '1';
  try {
    return body();
  } finally {
    delete env.OPENBLAS_NUM_THREADS;
  }
}

/** M, N, K that take the library's paths: small and packed, whole and ragged, a row, a column, and past one group of terms. */
const CHECKS = [
  [16, 16, 32],
  [17, 13, 33],
  [67, 71, 390],
  [1, 97, 130],
  [97, 1, 130],
  [5, 7, 4100],
];

/**
 * Multiplies small whole numbers, whose sums float32 holds exactly in any order, and compares to the last bit, in memory that starts
 * as NaN. There are builds of OpenBLAS that choose kernels which are wrong on a processor newer than they are.
 * @returns undefined when all is right
 */
export function refusalOf(addon: NativeAddon): string | undefined {
  if (typeof addon.multiplyWithin !== 'function') return `it is of an older version of seqmix; ${BUILD_ANEW}`;
  for (const [M, N, K] of CHECKS)
    for (const transposeA of [false, true])
      for (const transposeB of [false, true]) {
        const product = [M, N, K, transposeA, transposeB] as const;
        if (multiplies(addon, product) && multipliesWithin(addon, product)) continue;
        return `its library computes wrongly here (${addon.core}: ${M} x ${K} x ${N}, transposeA=${transposeA}, transposeB=${transposeB}); set the environment variable OPENBLAS_CORETYPE=Haswell, or update OpenBLAS`;
      }
}

type Product = readonly [M: number, N: number, K: number, transposeA: boolean, transposeB: boolean];

/** A and B as stored, and what C should be. */
function example([M, N, K, transposeA, transposeB]: Product) {
  const [a, b] = [wholeNumbers(M * K, 0), wholeNumbers(K * N, 1)];
  return {
    a: transposeA ? transpose(a, M, K) : a,
    b: transposeB ? transpose(b, K, N) : b,
    want: exactProduct(a, b, M, N, K),
  };
}

function multiplies(addon: NativeAddon, product: Product): boolean {
  const [M, N, K] = product;
  const { a, b, want } = example(product);
  const bias = wholeNumbers(N, 2);
  const [atA, atB, atBias, atC] = [1, 1 + M * K, 1 + M * K + K * N, 1 + M * K + K * N + N]; // offset 0 would be no bias
  const memory = new Float32Array(atC + M * N);
  memory.set(a, atA);
  memory.set(b, atB);
  memory.set(bias, atBias);
  return [0, 1].every((biased) => {
    const c = memory.subarray(atC).fill(Number.NaN);
    addon.multiply(memory.buffer, 4 * atA, 4 * atB, 4 * atC, 4 * atBias * biased, ...product);
    return c.every((x, i) => x === want[i] + biased * bias[i % N]);
  });
}

/** Floats between the rows of a matrix in the check, which are not its own. */
const GAP = 3;

/** Written over NaN and added to ones; what lies between the rows stays. */
function multipliesWithin(addon: NativeAddon, product: Product): boolean {
  const [M, N, K, transposeA, transposeB] = product;
  const { a, b, want } = example(product);
  const [strideA, strideB, strideC] = [transposeA ? M : K, transposeB ? K : N, N].map((columns) => columns + GAP);
  const atB = (transposeA ? K : M) * strideA;
  const atC = atB + (transposeB ? N : K) * strideB;
  const memory = new Float32Array(atC + M * strideC).fill(Number.NaN);
  a.forEach((x, i) => {
    memory[i + GAP * Math.floor(i / (strideA - GAP))] = x;
  });
  b.forEach((x, i) => {
    memory[atB + i + GAP * Math.floor(i / (strideB - GAP))] = x;
  });
  return [false, true].every((add) => {
    const before = add ? 1 : Number.NaN;
    const c = memory.subarray(atC).fill(before);
    const call = [0, strideA, 4 * atB, strideB, 4 * atC, strideC, ...product, add] as const;
    addon.multiplyWithin(memory.buffer, ...call);
    return c.every((x, i) => {
      const [row, column] = [Math.floor(i / strideC), i % strideC];
      return column < N ? x === want[row * N + column] + (add ? 1 : 0) : Object.is(x, before);
    });
  });
}

/** From -8 to 8. */
const wholeNumbers = (size: number, seed: number) =>
  Float32Array.from({ length: size }, (_, i) => (((i + seed) * 7919) % 17) - 8);

const transpose = (x: Float32Array, rows: number, columns: number) =>
  x.map((_, i) => x[(i % rows) * columns + Math.floor(i / rows)]);

function exactProduct(a: Float32Array, b: Float32Array, M: number, N: number, K: number): Float64Array {
  const c = new Float64Array(M * N);
  for (let i = 0; i < M; i++)
    for (let k = 0; k < K; k++) {
      const x = a[i * K + k];
      for (let j = 0; j < N; j++) c[i * N + j] += x * b[k * N + j];
    }
  return c;
}
