/** Pure functions on tensors: one folder per op. Each runs on every backend; on wasm `auto` picks the fused kernel. */
export { type SwiGluOptions, swiGlu } from './swiGlu/index.js';
