/** What a thread of the pipeline does: its layers, piece after piece. */
import * as tf from '@tensorflow/tfjs';
import type { LayerStage } from '../models/layerRange.js';
import { restoreLayer, type StoredLayer, storeLayer } from '../models/storedState.js';
import { beatWhile, type Pulse } from '../threads/pulse.js';
import type { Inlet, Outlet } from './link.js';

export class StageReader {
  constructor(
    readonly stage: LayerStage,
    readonly hiddenSize: number,
    readonly inlet: Inlet,
    /** To the thread of the next layers; undefined for the last. */
    readonly outlet: Outlet | undefined,
    readonly pulse: Pulse,
  ) {}

  /**
   * Reads pieces up to the end of the prompt.
   * @param before the states of these layers; none at the beginning of a sequence
   * @returns the states after the last piece; those of before, if there was none
   */
  async read(before: StoredLayer[] | undefined): Promise<StoredLayer[] | undefined> {
    let state = before?.map(restoreLayer);
    for (;;) {
      const piece = await beatWhile(this.pulse, this.inlet.take());
      if (!piece) break;
      const x = tf.tensor3d(piece, [1, piece.length / this.hiddenSize, this.hiddenSize]);
      const { x: y, state: next } = this.stage.forward(x, state);
      tf.dispose([x, state ?? []]);
      state = next;
      if (this.outlet) await beatWhile(this.pulse, this.outlet.send(await copyOf(y)));
      y.dispose();
    }
    await this.outlet?.send(null);
    const after = state && (await Promise.all(state.map(storeLayer)));
    tf.dispose(state);
    return after;
  }

  /** Tensors held in this thread: its weights, between two prompts. */
  async numTensors(): Promise<number> {
    return tf.memory().numTensors;
  }
}

/** In memory of its own, which can be given away: wasm hands out its own. */
export async function copyOf(x: tf.Tensor): Promise<Float32Array> {
  return ((await x.data()) as Float32Array).slice();
}
