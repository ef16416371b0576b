/** The forms of attention under test: the kernel, the kernel with native products whatever the size (where the addon is built), the plain form. */
import { afterAll, beforeAll } from 'vitest';
import { blocksFrom } from '../../src/chunked/flashAttention/blocks.js';
import { nativeAddon } from '../backend/native.js';

export const attentionForms = nativeAddon
  ? (['auto', 'native products', 'plain'] as const)
  : (['auto', 'plain'] as const);
export type AttentionForm = 'auto' | 'native products' | 'plain';

/** The cpu backend has the plain form only, whatever it is asked for. */
export const formsOn = (backend: string): readonly AttentionForm[] => (backend === 'wasm' ? attentionForms : ['plain']);

/** To be called in a `describe`: makes the choice for its tests. Returns the option `form`. */
export function useForm(name: AttentionForm): 'auto' | 'plain' {
  if (name === 'plain') return 'plain';
  const before = { ...blocksFrom };
  const chosen = name === 'auto' ? { keys: Number.POSITIVE_INFINITY } : { keys: 1, width: 1 };
  beforeAll(() => void Object.assign(blocksFrom, chosen));
  afterAll(() => void Object.assign(blocksFrom, before));
  return 'auto';
}
