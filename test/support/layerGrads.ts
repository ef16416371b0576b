/** Outputs and gradients of a layer by name: `y`, `x`, weights by their checkpoint names, and `state.` with a state tensor's name. */
import * as tf from '@tensorflow/tfjs';
import type { LayerOutput, LayerState, SeqLayer } from '../../src/layers/seqLayer.js';
import { timeSlice } from './opProperties.js';
import { normal } from './tensors.js';

export type Tensors = Record<string, tf.Tensor>;

/** A way to run a layer from a state; default one `forward` over x. */
export type Run = (x: tf.Tensor, state: LayerState | undefined) => LayerOutput;

export interface GradOptions {
  state?: LayerState;
  /** Gradient on the output of a name; undefined: none. Default standard normal. */
  upstream?: (name: string, shape: number[]) => tf.Tensor | undefined;
  run?: Run;
}

/** Outputs, and the gradient of `sum(upstream * output)` on every weight, on x and on the state, int32 tensors left out. */
export function layerGrads(
  layer: SeqLayer,
  x: tf.Tensor,
  { state, upstream = randomUpstream, run = (all, from) => layer.forward(all, from) }: GradOptions = {},
): { outputs: Tensors; grads: Tensors } {
  const inputs = layerInputs(layer, x, state);
  const outputs = tf.tidy(() => flat(run(x, state)));
  const objective = () => {
    const terms = Object.entries(floats(flat(run(x, state)))).flatMap(([name, t]) => {
      const dy = upstream(name, t.shape);
      return dy ? [tf.sum(tf.mul(t, dy))] : [];
    });
    return tf.addN(terms) as tf.Scalar;
  };
  const list = tf.tidy(() => tf.grads(objective)(Object.values(inputs)));
  return { outputs, grads: Object.fromEntries(Object.keys(inputs).map((name, i) => [name, list[i]])) };
}

/** Everything a layer has a gradient on: not weights that are constants. */
export function layerInputs(layer: SeqLayer, x: tf.Tensor, state: LayerState = {}): Tensors {
  return floats({
    ...Object.fromEntries([...layer.weightsByName()].filter(([, weight]) => weight.trainable)),
    x,
    ...stateNames(state),
  });
}

/** The layer over the pieces between `cuts`, each from the state the one before left. */
export function inPieces(layer: SeqLayer, cuts: number[]): Run {
  return (x, state) => {
    const T = x.shape[1] as number;
    const ends = [...new Set([...cuts.filter((t) => t < T), T])].sort((a, b) => a - b);
    const pieces: tf.Tensor[] = [];
    let carried = state;
    for (const [n, end] of ends.entries()) {
      const piece = layer.forward(timeSlice(x, ends[n - 1] ?? 0, end), carried);
      pieces.push(piece.y);
      carried = piece.state;
    }
    return { y: tf.concat(pieces, 1), state: carried as LayerState };
  };
}

/** Standard normal, from a seed of the name's own. */
export function randomUpstream(name: string, shape: number[]): tf.Tensor {
  const seed = [...name].reduce((hash, c) => (31 * hash + c.charCodeAt(0)) % 1_000_003, 7);
  return tf.tensor(normal(seed, tf.util.sizeFromShape(shape)), shape);
}

/** y and the tensors of the state in one record. */
export const flat = ({ y, state }: LayerOutput): Tensors => ({ y, ...stateNames(state) });

export const floats = (tensors: Tensors): Tensors =>
  Object.fromEntries(Object.entries(tensors).filter(([, t]) => t.dtype === 'float32'));

const stateNames = (state: LayerState): Tensors =>
  Object.fromEntries(Object.entries(state).map(([name, t]) => [`state.${name}`, t]));
