/** Prompts read on several cores. Node only. */
export { type PrefillOptions, PrefillPool } from './pool.js';
