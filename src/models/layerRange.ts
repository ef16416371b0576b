/** Layers of a decoder in a row: all of them, or the part of a core in a pipeline over layers. */
import * as tf from '@tensorflow/tfjs';
import { maskedScale } from '../chunked/index.js';
import { dropout as drop } from '../layers/dropout.js';
import type { ForwardOptions, LayerOutput, LayerState, SeqLayer } from '../layers/index.js';
import type { ModelState } from './causalLM.js';
import type { ModelConfig } from './config.js';
import { type Block, BOUNDS, createDecoder, type Decoder, namedLayers } from './decoder.js';
import { buildLayer, type NamedArrays, type PackedArrays } from './trainableModel.js';

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
  options?: ForwardOptions,
): { x: tf.Tensor; state: ModelState } {
  let y = from === 0 ? embeddings.forward(x).y : x;
  const next: ModelState = [];
  for (const [i, block] of blocks.slice(from, to).entries()) {
    const after = runBlock(block, y, state?.[i], ofLayer(options, from + i));
    next.push(after.state);
    y = after.y;
  }
  return { x: y, state: next };
}

/** The options of one of several layers: its random numbers are its own. */
export function ofLayer(options: ForwardOptions = {}, layer: number | string): ForwardOptions {
  const { training } = options;
  return training ? { ...options, training: training.split(`layer ${layer}`) } : options;
}

export interface BlockOptions extends ForwardOptions {
  /** Called with the input of the mixer, inside a tidy. */
  look?: (x: tf.Tensor) => void;
  /** Multiplies the input of the mixer: [B * T, 1], 0 at padding that a mixer reading in both directions must not see. */
  mask?: tf.Tensor;
}

/** One block (see `Block`). */
export function runBlock(
  block: Block,
  x: tf.Tensor,
  state: LayerState | undefined,
  { look, mask, ...options }: BlockOptions = {},
): LayerOutput {
  return tf.tidy(() => {
    let next: LayerState = {};
    const h = residual(block, 'attn', block.attnNorm, x, options, (z) => {
      look?.(z);
      const mixed = block.mixer.forward(mask ? scaledSteps(z, mask) : z, state, ofLayer(options, 'attn'));
      next = mixed.state;
      return mixed.y;
    });
    const { mlp, mlpNorm } = block;
    const y =
      mlp && mlpNorm
        ? residual(block, 'mlp', mlpNorm, h, options, (z) => mlp.forward(z, undefined, ofLayer(options, 'mlp')).y)
        : h;
    return { y, state: next } as unknown as tf.TensorContainerObject;
  }) as unknown as LayerOutput;
}

/** Every step times a number of its own: steps are entries of a batch to `maskedScale`, which is faster on wasm than a broadcast. */
function scaledSteps(x: tf.Tensor, mask: tf.Tensor): tf.Tensor {
  const [B, T, D] = x.shape as [number, number, number];
  return tf.reshape(maskedScale({ x: tf.reshape(x, [B * T, D, 1]), mask }), [B, T, D]);
}

/** Half a block: x + drop(f(norm(x))), or norm(x + drop(f(x))). */
function residual(
  { normPosition = 'pre', dropout = 0 }: Block,
  name: string,
  norm: SeqLayer,
  x: tf.Tensor,
  options: ForwardOptions,
  f: (z: tf.Tensor) => tf.Tensor,
): tf.Tensor {
  const { cuSeqlens, training } = ofLayer(options, `${name} residual`);
  const normed = (z: tf.Tensor) => norm.forward(z, undefined, { cuSeqlens, training }).y;
  const added = f(normPosition === 'pre' ? normed(x) : x);
  const y = tf.add(x, dropout > 0 ? drop(added, dropout, training, { tied: true }) : added);
  return normPosition === 'pre' ? y : normed(y);
}

/** True for the weights of the layers in a range, and for those that layers share, by their published names. */
export function isOfLayers({ from, to }: LayerRange, name: string): boolean {
  if (name === BOUNDS) return true;
  const [, layer] = /^model\.layers\.(\d+)\./.exec(name) ?? [];
  return layer !== undefined && from <= Number(layer) && Number(layer) < to;
}

/** Some layers of a model alone, past its embedding. No weight of another layer is allocated. */
export class LayerStage {
  readonly #decoder: Decoder;

  /** @param weights of the layers in the range, at least @param packed those of them that are packed */
  constructor(
    config: ModelConfig,
    readonly range: LayerRange,
    weights: NamedArrays,
    packed?: PackedArrays,
  ) {
    this.#decoder = createDecoder(config);
    for (const [prefix, layer] of namedLayers(this.#decoder))
      if (layer === this.#decoder.bounds || isOfLayers(range, `${prefix}.`))
        buildLayer(prefix, layer, (name) => weights.get(name)!.data, packed);
  }

  /** @param x [B, T, D] @param state of these layers; not disposed */
  forward(x: tf.Tensor, state?: ModelState): { x: tf.Tensor; state: ModelState } {
    const run = () => runLayers(this.#decoder, this.range, x, state) as unknown as tf.TensorContainerObject;
    return tf.tidy(run) as unknown as { x: tf.Tensor; state: ModelState };
  }
}
