/** The part of a training step that is matrix products: one SwiGLU over all tokens of a batch, forward and all gradients. */
import { blockUntilReady, defaultDevice, init, jit, nn, numpy as np, valueAndGrad } from '@jax-js/jax';
import * as tf from '@tensorflow/tfjs';
import { SwiGLU } from '../../src/layers/index.js';
import { Rng } from '../../src/rng.js';
import type { Task } from '../harness.js';
import { readHandover } from './handover.js';

/** Gives sum(y * upstream), after x and the three weights have their gradients. */
export const ourMlp = (env: Record<string, string>): Task => ({
  setup: 'ours',
  env,
  prepare({ handover }) {
    const { weights, x, upstream } = inputs(handover);
    const [rows, width] = x.shape;
    const layer = new SwiGLU({ hiddenSize: width, intermediateSize: weights.gate_proj.shape[0] });
    layer.buildWith((name) => weights[name.split('.')[0]].data);
    const variables = [...layer.weightsByName().values()];
    const tokens = tf.variable(tf.tensor3d(x.data, [1, rows, width]));
    const factor = tf.tensor3d(upstream.data, [1, rows, width]);
    const loss = () => tf.sum(tf.mul(layer.forward(tokens).y, factor)) as tf.Scalar;
    return () => tf.tidy(() => tf.variableGrads(loss, [tokens, ...variables]).value.dataSync()[0]);
  },
});

export const jaxMlp: Task = {
  setup: 'own',
  patienceMs: 300_000,
  async prepare({ handover }) {
    await init('wasm');
    defaultDevice('wasm');
    const { weights, x, upstream } = inputs(handover);
    const array = ({ data, shape }: Matrix) => np.array(data).reshape(shape);
    const { gate_proj, up_proj, down_proj } = weights;
    const given = { x: array(x), gate: array(gate_proj), up: array(up_proj), down: array(down_proj) };
    const factor = array(upstream);
    const step = jit(valueAndGrad(lossOf));
    return async () => {
      const { x, gate, up, down } = given; // each use of an array gives a reference away
      const [loss, gradients] = step({ x: x.ref, gate: gate.ref, up: up.ref, down: down.ref }, factor.ref);
      await blockUntilReady(gradients);
      for (const gradient of Object.values(gradients)) gradient.dispose();
      return (await loss.data())[0];
    };
  },
};

type Arrays = { x: np.Array; gate: np.Array; up: np.Array; down: np.Array };

function lossOf({ x, gate, up, down }: Arrays, factor: np.Array): np.Array {
  const product = (rows: np.Array, weight: np.Array) => np.matmul(rows, np.transpose(weight));
  const inner = nn.silu(product(x.ref, gate)).mul(product(x, up));
  return product(inner, down).mul(factor).sum();
}

interface Matrix {
  shape: number[];
  data: Float32Array<ArrayBuffer>;
}

const MLP = 'model.layers.0.mlp.';

/** The first layer's weights, and random rows: as many as a batch has tokens. */
function inputs(handover: string | undefined): { weights: Record<string, Matrix>; x: Matrix; upstream: Matrix } {
  const { weights, batches } = readHandover(handover);
  const own = [...weights].filter(([name]) => name.startsWith(MLP));
  const named = own.map(([name, { shape, data }]) => [
    name.slice(MLP.length).split('.')[0],
    { shape: [...shape], data: Float32Array.from(data) },
  ]);
  const matrices: Record<string, Matrix> = Object.fromEntries(named);
  const shape = [batches[0].inputs.length, matrices.gate_proj.shape[1]];
  const rng = new Rng('bench mlp');
  const draw = (label: string, std: number) =>
    Float32Array.from(rng.split(label).normalArray(shape[0] * shape[1], std));
  return {
    weights: matrices,
    x: { shape, data: draw('x', 1) },
    upstream: { shape, data: draw('upstream', 1e-3) },
  };
}
