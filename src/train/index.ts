export * from './checkpoint/index.js';
export * from './data/index.js';
export * from './tokenizers/index.js';
