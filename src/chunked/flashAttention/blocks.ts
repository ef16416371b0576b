/** Whether the products of the kernel are native (README, 4): a choice of speed, measured. */
import type { WasmContext } from '../wasm/runtime.js';

/** From here on they are faster, keys that a query sees and floats of K + V; below, calls and half-empty blocks cost more. Tests lower it. */
export const blocksFrom = { keys: 256, width: 64 };

export const inBlocks = ({ native }: WasmContext, keys: number, width: number): boolean =>
  native !== undefined && keys >= blocksFrom.keys && width >= blocksFrom.width;
