/** GFLOP/s of a product that stays in cache, with the build of kernels in use: the machine's limit that a share is a share of. */
import { basename, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { chooseBuild } from '../../src/backend/relaxedSimd.js';

const FLOP = 2 * 128 ** 3;
const REPEATS = 64;

/** A function that gives the best GFLOP/s of three tries (some 20 ms) on one core; warmed up. A limit is what is possible, so the best counts. */
export async function peakMeter(): Promise<() => number> {
  const memory = new WebAssembly.Memory({ initial: 4 });
  new Float32Array(memory.buffer).fill(1e-3);
  const module = new WebAssembly.Module(await compile());
  const { exports } = new WebAssembly.Instance(module, { env: { memory, abort: () => undefined } });
  const peak = exports.peak as (a: number, b: number, c: number, repeats: number) => void;
  const measure = () => {
    const start = performance.now();
    peak(0, 65536, 131072, REPEATS);
    return (FLOP * REPEATS) / (performance.now() - start) / 1e6;
  };
  for (let i = 0; i < 60; i++) measure(); // V8 tiers wasm up in the background
  return () => Math.max(measure(), measure(), measure());
}

async function compile(): Promise<Uint8Array<ArrayBuffer>> {
  // Loaded when needed: every worker imports its suite, and with it this file, but none compiles anything.
  const { default: asc } = await import('assemblyscript/asc');
  const root = fileURLToPath(new URL('../..', import.meta.url));
  const source = relative(root, fileURLToPath(new URL('./kernel.as.ts', import.meta.url)));
  const flags = ['-O3', '--noAssert', '--runtime', 'stub', '--importMemory', '--noExportMemory', '--enable', 'simd'];
  if (chooseBuild() === 'relaxed') flags.push('--enable', 'relaxed-simd');
  const files: Record<string, Uint8Array<ArrayBuffer>> = {};
  const { error, stderr } = await asc.main([source, '--baseDir', root, '--outFile', 'peak.wasm', ...flags], {
    writeFile: (name: string, data: unknown) => {
      files[basename(name)] = data as Uint8Array<ArrayBuffer>;
    },
  });
  if (error) throw new Error(`bench: the kernel of the machine's limit does not compile: ${error.message}\n${stderr}`);
  return files['peak.wasm'];
}
