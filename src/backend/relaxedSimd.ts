/**
 * Which build of our kernels this engine should run: relaxed SIMD (fused multiply-add, about twice the arithmetic per instruction) or
 * plain SIMD. Node 20 has relaxed SIMD behind a V8 flag that may be set while running; later engines have it without.
 */
import type { SimdBuild } from '../chunked/wasm/runtime.js';

export type RelaxedSimd = 'auto' | 'on' | 'off';

export const RELAXED_SIMD_VARIABLE = 'SEQMIX_RELAXED_SIMD';

/**
 * A module of one function, (a, b, c: f32) => first lane of f32x4.relaxed_madd(splat a, splat b, splat c), written out by hand:
 * the proposal had other opcodes and another operand order before it was finished, so an engine is asked for exactly this.
 */
const PROBE = new Uint8Array([
  ...[0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00], // magic, version
  ...[0x01, 0x08, 0x01, 0x60, 0x03, 0x7d, 0x7d, 0x7d, 0x01, 0x7d], // type (f32, f32, f32) => f32
  ...[0x03, 0x02, 0x01, 0x00, 0x07, 0x08, 0x01, 0x04, 0x6d, 0x61, 0x64, 0x64, 0x00, 0x00], // one function, exported as "madd"
  ...[0x0a, 0x16, 0x01, 0x14, 0x00], // its body, without locals
  ...[0x20, 0x00, 0xfd, 0x13, 0x20, 0x01, 0xfd, 0x13, 0x20, 0x02, 0xfd, 0x13], // three splats
  ...[0xfd, 0x85, 0x02, 0xfd, 0x1f, 0x00, 0x0b], // f32x4.relaxed_madd, f32x4.extract_lane 0, end
]);

/** The request: the option if given, else the environment variable SEQMIX_RELAXED_SIMD, else `auto`. */
export function relaxedSimdRequest(option: RelaxedSimd | undefined): RelaxedSimd {
  const [value, source] = option
    ? [option, 'useBackend: relaxedSimd']
    : [globalThis.process?.env?.[RELAXED_SIMD_VARIABLE] || 'auto', `environment variable ${RELAXED_SIMD_VARIABLE}`];
  if (value === 'auto' || value === 'on' || value === 'off') return value;
  throw new RangeError(`${source} must be one of 'auto', 'on', 'off', got '${value}'`);
}

/**
 * The build to install. `auto` takes relaxed SIMD where the engine has it and computes with it rightly, `off` never;
 * `on` throws, with the remedy, where `auto` would take plain SIMD.
 */
export function chooseBuild(option?: RelaxedSimd): SimdBuild {
  const request = relaxedSimdRequest(option);
  if (request === 'off') return 'plain';
  const refusal = refusalOfRelaxedSimd();
  if (!refusal) return 'relaxed';
  if (request === 'auto') return 'plain';
  throw new Error(
    `useBackend: relaxedSimd is 'on' but ${refusal}; use Node 20 or later (or a browser that has relaxed SIMD), or pass relaxedSimd: 'auto'`,
  );
}

/** Why relaxed SIMD cannot be used here; undefined when it can. On Node this may switch the engine's flag on. */
export function refusalOfRelaxedSimd(): string | undefined {
  if (!WebAssembly.validate(PROBE)) {
    // Asked of the process, not imported: bundlers and browsers never see the module.
    const v8 = globalThis.process?.getBuiltinModule?.('node:v8');
    v8?.setFlagsFromString('--experimental-wasm-relaxed-simd');
    if (!WebAssembly.validate(PROBE)) return 'this engine does not compile it';
  }
  const { madd } = new WebAssembly.Instance(new WebAssembly.Module(PROBE)).exports as { madd: Madd };
  return checkMadd(madd);
}

export type Madd = (a: number, b: number, c: number) => number;

/** Compares a multiply-add with the exact results of one rounding and of two; anything else is refused. */
export function checkMadd(madd: Madd): string | undefined {
  const e = 2 ** -12; // (1 + e)^2 = 1 + 2e + e^2, and e^2 is half a unit in the last place of 1 + 2e: two roundings lose it
  const cases: [number, number, number, number[]][] = [
    [2, 3, 4, [10]], // operand order: 2 + 3 * 4 would be 14
    [1 + e, 1 + e, -(1 + 2 * e), [0, e * e]],
    [-1.5, 2, 0.25, [-2.75]],
    [Number.POSITIVE_INFINITY, 1, 1, [Number.POSITIVE_INFINITY]],
    [Number.NaN, 1, 1, [Number.NaN]],
  ];
  for (const [a, b, c, allowed] of cases) {
    const got = madd(a, b, c);
    if (!allowed.some((x) => Object.is(x, got)))
      return `its multiply-add is wrong here: ${a} * ${b} + ${c} gave ${got}, expected ${allowed.join(' or ')}`;
  }
}
