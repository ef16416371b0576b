/** The defects of TensorFlow.js 4.22.0 that `useBackend` mends. Nothing is changed by importing this. */
import { broadcast } from './broadcast.js';
import { clipByValue } from './clipByValue.js';
import { cumsumGradient } from './cumsumGradient.js';
import { identity } from './identity.js';
import { log1p } from './log1p.js';
import { matMul } from './matMul.js';
import type { Fix } from './replaceKernel.js';
import { sum } from './sum.js';
import { unsortedSegmentSum } from './unsortedSegmentSum.js';

export const FIXES: readonly Fix[] = [
  cumsumGradient,
  unsortedSegmentSum,
  log1p,
  sum,
  clipByValue,
  broadcast,
  identity,
  matMul,
];

/** Installs the fixes for one backend; those already installed are left alone. */
export function installFixes(backend: string): void {
  for (const fix of FIXES) if (fix.backend === 'any' || fix.backend === backend) fix.install();
}
