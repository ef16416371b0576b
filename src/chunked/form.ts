/** The two forms of an op that has no chunks. */
import { checkOneOf } from './check.js';
import { hasFusedKernels } from './wasm/runtime.js';

/** `auto` (default): our kernel on wasm, plain ops elsewhere; `plain`: TensorFlow.js ops on any backend. */
export type PlainForm = 'auto' | 'plain';

/** True when `form` asks for the kernel and the active backend has it. */
export function isFused(op: string, form: PlainForm): boolean {
  checkOneOf(op, 'form', form, ['auto', 'plain']);
  return form === 'auto' && hasFusedKernels(op);
}
