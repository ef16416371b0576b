/** Training on several cores. Node only. */
export { type PoolOptions, WorkerPool } from './pool.js';
export type { MemoryUse } from './replica.js';
