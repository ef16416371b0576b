/** What runs where, and what is missing: a report to print, or to send along with a question. */
import * as tf from '@tensorflow/tfjs';
import { getThreadsCount } from '@tensorflow/tfjs-backend-wasm';
import { kernelBinaries } from '../chunked/wasm/generated/index.js';
import { installedBuild, installedNative, type SimdBuild, wasmBytes } from '../chunked/wasm/runtime.js';
import { FIXES } from './fixes/index.js';
import type { Fix } from './fixes/replaceKernel.js';
import { NATIVE_VARIABLE, nativeRequest, usableNative } from './native.js';
import { installedVersion } from './optional.js';
import { RELAXED_SIMD_VARIABLE, refusalOfRelaxedSimd, relaxedSimdRequest } from './relaxedSimd.js';
import { TENSORFLOW_PACKAGES } from './tensorflow.js';
import { findAdapter, WEBGPU_PACKAGE } from './webgpu.js';

export interface DoctorReport {
  /** Installed versions by package name; `null` where it is not installed (or not visible: in a browser). */
  packages: Record<string, string | null>;
  /** Version of Node, `null` elsewhere. */
  node: string | null;
  /** Operating system and architecture; the user agent in a browser. */
  platform: string;
  cpu: { model: string; count: number };
  /** The active backend, `null` before one is chosen. */
  backend: string | null;
  /** The engine compiles WebAssembly SIMD. */
  simd: boolean;
  relaxedSimd: {
    /** What `useBackend` is asked for without an option: the environment variable, else `auto`. */
    request: string;
    /** Why this engine cannot have it, `null` where it can. */
    refusal: string | null;
  };
  native: {
    /** What `useBackend` is asked for without an option: the environment variable, else `auto`. */
    request: string;
    /** Why native products cannot be had here, and what helps; `null` where they can. */
    refusal: string | null;
    /** The library they would be done by, with its build options; `null` where there is none. */
    library: string | null;
    /** They are in use on the active backend. */
    inUse: boolean;
  };
  /** Threads of the stock wasm kernels, `null` before that backend ran: 1 wherever `useBackend` started it. Our kernels use one. */
  threads: number | null;
  /** In bytes. `tensors`: what TensorFlow.js holds; `wasm`: size of the wasm memory, which never shrinks; `limit`: what it may grow to. */
  memory: { tensors: number; wasm: number | null; wasmLimit: number; process: number | null; heapLimit: number | null };
  /** Which build of our kernels is on the active backend, and of which ops; `null` where there are none. */
  kernels: { build: SimdBuild; ops: string[] } | null;
  /** Defects of TensorFlow.js on the active backend (before one is chosen: on all), and whether our fix is in. */
  fixes: { name: string; defect: string; installed: boolean }[];
  /** TensorFlow.js kernels that the cpu backend has and the active one lacks. */
  missingKernels: string[];
  optionalBackends: Record<'webgpu' | 'tensorflow', { available: boolean; detail: string }>;
}

/** 65536 pages, as @tensorflow/tfjs-backend-wasm 4.22.0 declares its memory. */
const WASM_LIMIT = 2 ** 32;

/**
 * Looks without changing anything but this: on Node 20 the V8 flag for relaxed SIMD is switched on to see whether it works, and the
 * native addon is loaded where it is built.
 */
export async function doctor(): Promise<DoctorReport> {
  const os = globalThis.process?.getBuiltinModule?.('node:os');
  const backend = tf.engine().backendName || null; // not tf.getBackend(), which would start one
  const build = backend ? installedBuild() : undefined;
  return {
    packages: packageVersions(),
    node: globalThis.process?.versions?.node ?? null,
    platform: os ? `${os.platform()} ${os.release()} ${os.arch()}` : (globalThis.navigator?.userAgent ?? 'unknown'),
    cpu: os
      ? { model: os.cpus()[0]?.model ?? 'unknown', count: os.availableParallelism() }
      : { model: 'unknown', count: globalThis.navigator?.hardwareConcurrency ?? 1 },
    backend,
    simd: (await tf.env().getAsync('WASM_HAS_SIMD_SUPPORT')) === true,
    relaxedSimd: { request: relaxedSimdRequest(undefined), refusal: refusalOfRelaxedSimd() ?? null },
    native: native(backend),
    threads: threads(),
    memory: memory(),
    kernels: build ? { build, ops: Object.keys(kernelBinaries).sort() } : null,
    fixes: FIXES.filter(concerns(backend)).map((fix) => ({
      name: fix.name,
      defect: fix.defect,
      installed: fix.installed(),
    })),
    missingKernels: backend ? missingKernels(backend) : [],
    optionalBackends: { webgpu: await lookForWebgpu(), tensorflow: lookForTensorflow() },
  };
}

const concerns = (backend: string | null) => (fix: Fix) => !backend || fix.backend === 'any' || fix.backend === backend;

function packageVersions(): Record<string, string | null> {
  const names = ['seqmix', '@tensorflow/tfjs', '@tensorflow/tfjs-backend-wasm', WEBGPU_PACKAGE, 'webgpu'];
  return Object.fromEntries([...names, ...TENSORFLOW_PACKAGES].map((name) => [name, installedVersion(name) ?? null]));
}

function native(backend: string | null): DoctorReport['native'] {
  const addon = usableNative();
  const inUse = backend !== null && installedNative() !== undefined;
  const request = nativeRequest(undefined);
  if (typeof addon === 'string') return { request, refusal: addon, library: null, inUse };
  return { request, refusal: null, library: `${addon.config}, kernels for ${addon.core}`, inUse };
}

function threads(): number | null {
  try {
    return getThreadsCount();
  } catch {
    return null; // it throws until the backend has started
  }
}

function memory(): DoctorReport['memory'] {
  const v8 = globalThis.process?.getBuiltinModule?.('node:v8');
  return {
    tensors: tf.engine().backendName ? tf.memory().numBytes : 0,
    wasm: wasmBytes() ?? null,
    wasmLimit: WASM_LIMIT,
    process: globalThis.process?.memoryUsage?.().rss ?? null,
    heapLimit: v8?.getHeapStatistics().heap_size_limit ?? null,
  };
}

function missingKernels(backend: string): string[] {
  const names = tf.getKernelsForBackend('cpu').map(({ kernelName }) => kernelName);
  return names.filter((name) => !tf.getKernel(name, backend)).sort();
}

async function lookForWebgpu() {
  if (globalThis.process?.versions?.node && !installedVersion(WEBGPU_PACKAGE))
    return { available: false, detail: `not installed; npm install webgpu ${WEBGPU_PACKAGE}@${tf.version.tfjs}` };
  return findAdapter().then(
    (adapter) => ({ available: true, detail: adapter }),
    (error: Error) => ({ available: false, detail: error.message.replace('useBackend: ', '') }),
  );
}

function lookForTensorflow() {
  const found = TENSORFLOW_PACKAGES.find((name) => installedVersion(name));
  if (found) return { available: true, detail: `${found} ${installedVersion(found)} (not loaded to look)` };
  return { available: false, detail: `not installed; npm install ${TENSORFLOW_PACKAGES[1]}@${tf.version.tfjs}` };
}

/** The report as text, one fact a line. */
export function formatDoctor(report: DoctorReport): string {
  const { cpu, memory, kernels, relaxedSimd, native, optionalBackends } = report;
  const missing = report.fixes.filter((fix) => !fix.installed);
  const lines: [string, string][] = [
    ...Object.entries(report.packages).map(([name, version]): [string, string] => [name, version ?? 'not found']),
    ['node', report.node ?? 'no (a browser?)'],
    ['platform', report.platform],
    ['cpu', `${cpu.model}, ${cpu.count} cores`],
    ['backend', report.backend ?? "none chosen yet; call await useBackend('wasm')"],
    ['wasm SIMD', report.simd ? 'yes' : 'no'],
    ['relaxed SIMD', `${relaxedSimd.refusal ?? 'yes'} (${RELAXED_SIMD_VARIABLE}: ${relaxedSimd.request})`],
    [
      'native products',
      `${native.inUse ? 'in use' : 'not in use'}; ${native.refusal ?? native.library} (${NATIVE_VARIABLE}: ${native.request})`,
    ],
    ['stock wasm threads', report.threads === null ? 'not started' : String(report.threads)],
    ['memory of tensors', megabytes(memory.tensors)],
    [
      'memory of wasm',
      `${memory.wasm === null ? 'not in use' : megabytes(memory.wasm)}, at most ${megabytes(memory.wasmLimit)}`,
    ],
    ['memory of process', `${megabytes(memory.process)}; JavaScript heap at most ${megabytes(memory.heapLimit)}`],
    ['our kernels', kernels ? `${kernels.build} build: ${kernels.ops.join(', ')}` : 'none on this backend'],
    [
      'fixes installed',
      report.fixes
        .filter((fix) => fix.installed)
        .map((fix) => fix.name)
        .join('; ') || 'none',
    ],
    ...missing.map((fix): [string, string] => ['fix not installed', `${fix.name}: ${fix.defect}`]),
    ['kernels missing', report.backend ? report.missingKernels.join(', ') || 'none' : 'no backend yet'],
    ...Object.entries(optionalBackends).map(([name, { available, detail }]): [string, string] => [
      `backend ${name}`,
      `${available ? 'available' : 'not available'}: ${detail}`,
    ]),
  ];
  const width = Math.max(...lines.map(([name]) => name.length));
  return lines.map(([name, value]) => `${name.padEnd(width)}  ${value}`).join('\n');
}

const megabytes = (bytes: number | null) => (bytes === null ? 'unknown' : `${(bytes / 2 ** 20).toFixed(1)} MiB`);
