/** Runs tests of matrix products by our kernels, and by the native addon too where it is built. */
import { beforeAll, describe } from 'vitest';
import { usableNative } from '../../src/backend/native.js';
import { useBackend } from '../../src/index.js';

const addon = usableNative();
/** Undefined where it is not built. */
export const nativeAddon = typeof addon === 'string' ? undefined : addon;

export function describeProducts(name: string, body: () => void): void {
  const ways = nativeAddon ? (['off', 'on'] as const) : (['off'] as const);
  describe.each(ways)(`${name}, native %s:`, (native) => {
    beforeAll(() => useBackend('wasm', { native }));
    body();
  });
}
