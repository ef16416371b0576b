/** Runs a piece of a test on the stock kernels and gradients that our fixes replaced, to show the defect each of them mends. */
import * as tf from '@tensorflow/tfjs';
import { stockGradient, stockKernel } from '../../src/backend/fixes/replaceKernel.js';

/** Puts the stock wasm kernel back (or none, where there is none) while `body` runs. */
export function withStockKernel<R>(name: string, body: () => R): R {
  const [ours, stock] = [tf.getKernel(name, 'wasm'), stockKernel(name, 'wasm')];
  if (stock === undefined) throw new Error(`withStockKernel: ${name} is not replaced`);
  tf.unregisterKernel(name, 'wasm');
  if (stock) tf.registerKernel(stock);
  try {
    return body();
  } finally {
    if (stock) tf.unregisterKernel(name, 'wasm');
    tf.registerKernel(ours);
  }
}

export function withStockGradient<R>(name: string, body: () => R): R {
  const [ours, stock] = [tf.getGradient(name), stockGradient(name)];
  if (!stock) throw new Error(`withStockGradient: ${name} is not replaced`);
  tf.registerGradient(stock);
  try {
    return body();
  } finally {
    tf.registerGradient(ours);
  }
}
