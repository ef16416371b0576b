/** Layers of a decoder in a row: all of them, or the part of a core in a pipeline over layers. */
import * as tf from '@tensorflow/tfjs';
import type { LayerState } from '../layers/index.js';
import type { ModelState, NamedArrays } from './causalLM.js';
import type { ModelConfig } from './config.js';
import { type Block, createDecoder, type Decoder, namedLayers } from './decoder.js';

/** Layers `from` to `to - 1`. */
export interface LayerRange {
  from: number;
  to: number;
}

/**
 * Inside a tidy of the caller.
 * @param x token ids [B, T] for a range that begins at layer 0, whose embedding goes before it; else [B, T, D]
 * @param state of the layers of the range
 */
export function runLayers(
  { embeddings, blocks }: Decoder,
  { from, to }: LayerRange,
  x: tf.Tensor,
  state?: ModelState,
  cuSeqlens?: Int32Array,
): { x: tf.Tensor; state: ModelState } {
  let y = from === 0 ? embeddings.forward(x).y : x;
  const next: ModelState = [];
  for (const [i, block] of blocks.slice(from, to).entries()) {
    const after = runBlock(block, y, state?.[i], cuSeqlens);
    next.push(after.state);
    y = after.y;
  }
  return { x: y, state: next };
}

/** @param look called with the input of the mixer, inside a tidy */
export function runBlock(
  block: Block,
  x: tf.Tensor,
  state: LayerState | undefined,
  cuSeqlens?: Int32Array,
  look?: (x: tf.Tensor) => void,
) {
  return tf.tidy(() => {
    const input = block.attnNorm.forward(x).y;
    look?.(input);
    const mixed = block.mixer.forward(input, state, { cuSeqlens });
    const h = tf.add(x, mixed.y);
    const y = tf.add(h, block.mlp.forward(block.mlpNorm.forward(h).y).y);
    return { y, state: mixed.state };
  });
}

/** True for the weights of the layers in a range, by their published names. */
export function isOfLayers({ from, to }: LayerRange, name: string): boolean {
  const [, layer] = /^model\.layers\.(\d+)\./.exec(name) ?? [];
  return layer !== undefined && from <= Number(layer) && Number(layer) < to;
}

/** Some layers of a model alone, past its embedding. No weight of another layer is allocated. */
export class LayerStage {
  readonly #decoder: Decoder;

  /** @param weights of the layers in the range, at least */
  constructor(
    config: ModelConfig,
    readonly range: LayerRange,
    weights: NamedArrays,
  ) {
    this.#decoder = createDecoder(config);
    for (const [prefix, layer] of namedLayers(this.#decoder))
      if (isOfLayers(range, `${prefix}.`)) layer.buildWith((name) => weights.get(`${prefix}.${name}`)!.data);
  }

  /** @param x [B, T, D] @param state of these layers; not disposed */
  forward(x: tf.Tensor, state?: ModelState): { x: tf.Tensor; state: ModelState } {
    const run = () => runLayers(this.#decoder, this.range, x, state) as unknown as tf.TensorContainerObject;
    return tf.tidy(run) as unknown as { x: tf.Tensor; state: ModelState };
  }
}
