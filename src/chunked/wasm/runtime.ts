/**
 * The bridge to our WebAssembly kernels: they import the wasm backend's own memory, so tensors are worked on where they lie.
 * The memory may grow between calls: offsets are read at each call and no typed-array view is ever kept.
 */
import * as tf from '@tensorflow/tfjs';
import type { BackendWasm } from '@tensorflow/tfjs-backend-wasm';
import { kernelBinaries } from './generated/index.js';

/** All exported functions of all kernels; every argument is a byte offset or a number. */
export type KernelExports = Record<string, (...args: number[]) => number>;

/** Which build of the kernels runs: `relaxed` uses fused multiply-add (one rounding), `plain` does not. */
export type SimdBuild = 'plain' | 'relaxed';

/**
 * Matrix products by native code on the wasm memory (`native/`): C [M, N] = op(A) op(B) + bias, by byte offsets into `memory`, `bias` 0
 * for none. All throw a RangeError for a matrix that does not lie within the memory.
 */
export interface NativeProduct {
  /** The library that computes: name, version, build options. */
  readonly config: string;
  /** The set of kernels it chose for this processor. */
  readonly core: string;
  multiply(
    memory: ArrayBuffer | Uint8Array,
    ...call: [
      ...[a: number, b: number, c: number, bias: number],
      ...[M: number, N: number, K: number, transposeA: boolean, transposeB: boolean],
    ]
  ): void;
  /** For many matrices of the same sizes: `offsets` are a, b, c, a, b, c, ... */
  multiplyAll(
    memory: ArrayBuffer | Uint8Array,
    offsets: Uint32Array,
    bias: number,
    ...call: [M: number, N: number, K: number, transposeA: boolean, transposeB: boolean]
  ): void;
  /**
   * For matrices within larger ones, with the floats from a stored row of each to the next: C = op(A) op(B), or C += op(A) op(B) where
   * `add`. Sums in float32.
   */
  multiplyWithin(
    memory: ArrayBuffer | Uint8Array,
    ...call: [
      ...[a: number, strideA: number, b: number, strideB: number, c: number, strideC: number],
      ...[M: number, N: number, K: number, transposeA: boolean, transposeB: boolean, add: boolean],
    ]
  ): void;
}

interface Installed {
  kernels: KernelExports;
  build: SimdBuild;
  native?: NativeProduct;
}

const installed = new WeakMap<object, Installed>();

/** Compile our kernels against the memory of the active wasm backend (once for a build), with native products beside them or none. */
export async function installKernels(build: SimdBuild, native?: NativeProduct): Promise<void> {
  const backend = tf.backend() as BackendWasm;
  const found = installed.get(backend);
  const kernels = found?.build === build ? found.kernels : await compileKernels(backend, build);
  installed.set(backend, { kernels, build, native });
}

async function compileKernels(backend: BackendWasm, build: SimdBuild): Promise<KernelExports> {
  const memory = wasmMemory(backend);
  if (isShared(memory))
    throw new Error(
      "useBackend: the wasm backend already runs with threads, on shared memory that our kernels cannot use; call await useBackend('wasm') before anything else starts it",
    );
  const env = { memory, abort: () => void 0, product: productFor(backend) };
  const kernels: KernelExports = {};
  for (const [op, binary] of Object.entries(kernelBinaries)) {
    const { instance } = await WebAssembly.instantiate(decodeBase64(binary[build]), { env });
    for (const [name, fn] of Object.entries(instance.exports)) {
      if (typeof fn !== 'function') continue;
      if (kernels[name]) throw new Error(`installKernels: two kernels export "${name}"; rename the one in ${op}`);
      kernels[name] = fn as KernelExports[string];
    }
  }
  return kernels;
}

/** `multiplyWithin` as kernels import it: offsets are signed there, booleans numbers. They call it only where a native library is in use. */
function productFor(backend: BackendWasm) {
  return (...call: number[]): void => {
    const { native } = installed.get(backend) as Installed;
    if (!native) throw new Error('seqmix: a kernel was told to use native products, of which there are none');
    const [a, strideA, b, strideB, c, strideC, M, N, K, transposeA, transposeB, add] = call;
    native.multiplyWithin(
      ...([bufferForNative(wasmMemory(backend)), a >>> 0, strideA, b >>> 0, strideB, c >>> 0, strideC] as const),
      ...([M, N, K, transposeA !== 0, transposeB !== 0, add !== 0] as const),
    );
  };
}

/** What multiplies matrices on the active backend instead of our kernels, or undefined where they do it. */
export function installedNative(): NativeProduct | undefined {
  return installed.get(tf.backend())?.native;
}

/** True when this engine compiles the fused-multiply-add build of every kernel as it is set now. */
export function supportsRelaxedSimd(): boolean {
  return Object.values(kernelBinaries).every(({ relaxed }) => WebAssembly.validate(decodeBase64(relaxed)));
}

/** The build in use on the active backend, or undefined where our kernels are not installed. */
export function installedBuild(): SimdBuild | undefined {
  return installed.get(tf.backend())?.build;
}

/** Our functions on the active backend as every caller finds them, for a profiler to wrap; undefined where they are not installed. */
export function installedKernels(): KernelExports | undefined {
  return installed.get(tf.backend())?.kernels;
}

/** Size of the active wasm backend's memory in bytes; undefined on other backends. */
export function wasmBytes(): number | undefined {
  return tf.engine().backendName === 'wasm' ? wasmMemory(tf.backend() as BackendWasm).buffer.byteLength : undefined;
}

/** True when fused kernels run on the active backend. On wasm without them it throws rather than fall back silently. */
export function hasFusedKernels(op: string): boolean {
  if (tf.getBackend() !== 'wasm') return false;
  if (installed.has(tf.backend())) return true;
  throw new Error(
    `${op}: the wasm backend is active without seqmix's kernels; call await useBackend('wasm') first, or pass form: 'chunk'`,
  );
}

/** What a kernel's TypeScript side needs of the backend: offsets, outputs and scratch memory. */
export class WasmContext {
  /** Tests set this: blocks that a kernel promises to fill start as NaN, so that an unwritten cell shows. */
  static poison = false;

  constructor(
    readonly backend: BackendWasm,
    readonly kernels: KernelExports,
    /** Multiplies matrices instead of our kernels, where it is in use. */
    readonly native?: NativeProduct,
  ) {}

  static of(backend: unknown): WasmContext {
    const found = installed.get(backend as object);
    if (!found) throw new Error("seqmix: no kernels on this backend; call await useBackend('wasm') first");
    return new WasmContext(backend as BackendWasm, found.kernels, found.native);
  }

  /** Byte offset of a tensor in the backend's memory; 0 for none, which kernels read as "absent". */
  ptr(x: tf.TensorInfo | undefined): number {
    return x ? this.backend.dataIdMap.get(x.dataId).memoryOffset : 0;
  }

  /** A new output tensor; its memory is not zeroed. */
  out(shape: number[], dtype: 'float32' | 'int32' = 'float32'): tf.TensorInfo {
    const info = this.backend.makeOutput(shape, dtype);
    if (WasmContext.poison && dtype === 'float32') this.backend.typedArrayFromHeap(info).fill(Number.NaN);
    return info;
  }

  /** Run `body` with 16-byte aligned scratch memory, freed also when it throws. Contents start undefined (NaN under poison). */
  scratch<R>(bytes: number, body: (offset: number) => R): R {
    const wasm = this.backend.wasm as unknown as { _malloc(n: number): number; _free(p: number): void };
    const raw = wasm._malloc(bytes + 16) >>> 0;
    if (raw === 0)
      throw new Error(
        `seqmix: the wasm memory is full (${bytes} bytes of scratch refused); use a smaller batch or shorter sequences`,
      );
    try {
      const offset = (raw + 15) & ~15;
      if (WasmContext.poison) new Float32Array(this.memory.buffer, offset >>> 0, bytes >> 2).fill(Number.NaN);
      return body(offset >>> 0);
    } finally {
      wasm._free(raw);
    }
  }

  /**
   * To be called after writing into a tensor that existed before. The backend's own products and convolutions (XNNPACK) pack their
   * weights once and find them by the tensor's number, so they would go on with the old values.
   */
  changed(x: tf.TensorInfo): void {
    const { id, memoryOffset } = this.backend.dataIdMap.get(x.dataId);
    const { disposeData, registerTensor } = this.backend.wasm.tfjs; // of the number only: the memory stays
    disposeData(id);
    registerTensor(id, tf.util.sizeFromShape(x.shape), memoryOffset);
  }

  /** The memory itself; make views for immediate use only. */
  get memory(): WebAssembly.Memory {
    return wasmMemory(this.backend);
  }

  /** For immediate use only. */
  memoryForNative(): ArrayBuffer | Uint8Array {
    return bufferForNative(this.memory);
  }

  /** A copy of `count` integers that a kernel left in scratch memory. */
  readInts(offset: number, count: number): Int32Array {
    return new Int32Array(this.memory.buffer, offset, count).slice();
  }

  /** Copy integers (offsets, tables) into scratch memory at `offset`. */
  writeInts(offset: number, values: ArrayLike<number>): void {
    new Int32Array(this.memory.buffer, offset, values.length).set(values);
  }
}

function wasmMemory(backend: BackendWasm): WebAssembly.Memory {
  const wasm = backend.wasm as unknown as { asm?: { memory?: WebAssembly.Memory }; wasmMemory?: WebAssembly.Memory };
  const memory = wasm.asm?.memory ?? wasm.wasmMemory;
  if (!memory)
    throw new Error('seqmix: this build of @tensorflow/tfjs-backend-wasm hides its memory; install version 4.22.0');
  return memory;
}

/** A memory as Node-API takes it: an ArrayBuffer as it is, a SharedArrayBuffer only as a view. */
const bufferForNative = ({ buffer }: WebAssembly.Memory): ArrayBuffer | Uint8Array =>
  buffer instanceof ArrayBuffer ? buffer : new Uint8Array(buffer);

const isShared = ({ buffer }: WebAssembly.Memory): boolean =>
  Object.prototype.toString.call(buffer) === '[object SharedArrayBuffer]'; // the name itself is missing where threads are not allowed

function decodeBase64(text: string): Uint8Array<ArrayBuffer> {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return bytes;
}
