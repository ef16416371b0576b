/** The language model one would write with TensorFlow.js alone: GRU layers on the stock wasm backend. */
import * as tf from '@tensorflow/tfjs';
import type { Batch } from '../../src/train/index.js';
import type { Task } from '../harness.js';
import { readHandover } from './handover.js';

/**
 * What one step takes. The tape keeps a gradient of every weight for every token, which fills the backend's 4 GiB at 64 tokens a row: a
 * step is kept short and counted per token.
 */
export const GRU_TOKENS = { rows: 8, tokens: 16 };

/** Two layers and a head. Tokens come one-hot: the backend has no gradient of an embedding. Its losses are those of another model. */
export const gruSteps: Task = {
  setup: 'stock',
  patienceMs: 300_000,
  prepare({ handover }) {
    const { batches, parameters, config, update } = readHandover(handover);
    const vocabSize = config.vocabSize ?? 256;
    const model = gruModel(gruUnits(parameters, vocabSize), vocabSize);
    const optimizer = tf.train.adam(update.learningRate);
    let step = 0;
    return async () => {
      const { inputs, targets } = batches[step++ % batches.length];
      const [x, y] = [inputs, targets].map((ids) => oneHot(ids, vocabSize));
      const loss = optimizer.minimize(
        () => tf.losses.softmaxCrossEntropy(y, model.apply(x, { training: true }) as tf.Tensor),
        true,
      );
      const [value] = await (loss as tf.Scalar).data();
      tf.dispose([x, y, loss as tf.Scalar]);
      return value;
    };
  },
};

/** Units of each layer for about this many parameters: 3 units (vocab + units) + 6 units^2 + vocab units, biases apart. */
export function gruUnits(parameters: number, vocabSize: number): number {
  const linear = 4 * vocabSize;
  return Math.round((Math.sqrt(linear ** 2 + 36 * parameters) - linear) / 18);
}

function gruModel(units: number, vocabSize: number): tf.Sequential {
  const layer = (input: object = {}) =>
    tf.layers.gru({ units, returnSequences: true, recurrentInitializer: 'glorotUniform', ...input });
  return tf.sequential({
    layers: [layer({ inputShape: [null, vocabSize] }), layer(), tf.layers.dense({ units: vocabSize })],
  });
}

/** The first rows x tokens ids of a batch, [rows, tokens, vocab]. */
function oneHot(ids: Batch['inputs'], vocabSize: number): tf.Tensor3D {
  const { rows, tokens } = GRU_TOKENS;
  const data = new Float32Array(rows * tokens * vocabSize);
  for (let i = 0; i < rows * tokens; i++) data[i * vocabSize + ids[i]] = 1;
  return tf.tensor3d(data, [rows, tokens, vocabSize]);
}
