/** Layers that can read in both directions. */
import type { LayerState } from './seqLayer.js';

/** @throws RangeError for a state of a layer that reads in both directions: it has no past apart from its future */
export function refuseState(label: string, bidirectional: boolean, state: LayerState | undefined): void {
  if (bidirectional && state && Object.keys(state).length)
    throw new RangeError(
      `${label}: a bidirectional layer reads the whole sequence at once and takes no state; give all tokens in one call, or set bidirectional to false`,
    );
}
