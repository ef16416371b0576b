/** A page that only loads a saved model: the bare import is there for the registration of our layers, and nothing refers to it. */
import * as tf from '@tensorflow/tfjs';
import 'seqmix/layers';
import { useBackend } from 'seqmix';
import type { PlainTensor } from './scenarios.js';

/** The model's outputs. */
export async function predict(topology: object, weights: PlainTensor[], input: PlainTensor) {
  await useBackend('cpu');
  const model = await tf.models.modelFromJSON({ modelTopology: topology } as tf.io.ModelJSON);
  const tensor = ({ data, shape }: PlainTensor) => tf.tensor(data, shape);
  model.setWeights(weights.map(tensor));
  return Array.from(await (model.predict(tensor(input)) as tf.Tensor).data());
}
