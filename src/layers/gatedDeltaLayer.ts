/** What the two delta rules that forget share: heads of a given width, and more heads of v than of q and k. */
import { DeltaLayer, type DeltaLayerOptions, type DeltaSizes } from './deltaLayer.js';
import type { LayerArgs } from './seqLayer.js';

export interface GatedDeltaOptions extends DeltaLayerOptions {
  /** Channels K of a head of q and k. */
  headDim: number;
  /** Channels of a head of v over headDim. */
  expandV: number;
  /** Heads of q and k. */
  numHeads: number;
  /** Heads of v, a multiple of numHeads, which is what null (default) stands for; neighbours share a head of q and k. */
  numVHeads: number | null;
}

export abstract class GatedDeltaLayer<O extends GatedDeltaOptions> extends DeltaLayer<O> {
  protected constructor(args: LayerArgs<O>, defaults: Omit<O, 'hiddenSize'>) {
    super(args, defaults);
    const { numHeads, numVHeads, headDim, expandV } = this.options;
    this.requirePositive('headDim', 'numHeads');
    if (numVHeads !== null) this.requirePositive('numVHeads');
    const { HV, V } = this.sizes();
    this.require(HV % numHeads === 0, `numVHeads must be a multiple of numHeads, got ${numVHeads} and ${numHeads}`);
    this.require(
      Number.isInteger(V) && V > 0,
      `headDim * expandV must be a positive integer, got ${headDim} * ${expandV}`,
    );
  }

  protected override sizes(): DeltaSizes {
    const { numHeads: H, numVHeads, headDim: K, expandV } = this.options;
    return { H, HV: numVHeads ?? H, K, V: K * expandV };
  }
}
