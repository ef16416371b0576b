/** The mixture in TensorFlow.js ops, on every backend: each expert runs on all tokens, and counts 0 where it was not chosen. */
import * as tf from '@tensorflow/tfjs';
import { swiGlu } from '../swiGlu/index.js';
import { unstack } from '../unstack.js';
import type { MixtureOfExpertsInputs } from './index.js';
import type { Routing } from './routing.js';

/** x [N, D], logits [N, E] -> [N, D]; arguments already checked. */
export function plainMixtureOfExperts(
  { x, logits, bias, w1, w2, w3 }: MixtureOfExpertsInputs,
  routing: Required<Routing>,
): tf.Tensor {
  const weights = tf.expandDims(routingWeights(logits, bias, routing), 0); // [1, N, E]
  const byExpert = unstack(tf.transpose(weights, [0, 2, 1])); // each [1, 1, N]
  const [gates, downs, ups] = [w1, w2, w3].map((w) =>
    unstack(tf.expandDims(w, 0)).map((one) => tf.squeeze(one, [0, 1])),
  );
  const parts = byExpert.map((weight, e) => {
    const project = (input: tf.Tensor, w: tf.Tensor) => tf.matMul(input, w, false, true);
    const h = swiGlu({ gate: project(x, gates[e]), up: project(x, ups[e]) }, { form: 'plain' });
    return tf.mul(project(h, downs[e]), tf.reshape(weight, [-1, 1]));
  });
  return tf.addN(parts);
}

/** The weight of every expert for every token [N, E]: 0 where it is not chosen. */
function routingWeights(logits: tf.Tensor, bias: tf.Tensor | undefined, routing: Required<Routing>): tf.Tensor {
  const { renormalize, routedScalingFactor: factor } = routing;
  const scores = tf.sigmoid(logits);
  const chosen = tf.mul(scores, choice(scores, bias ?? tf.zeros([scores.shape[1] as number]), routing));
  const shares = renormalize ? tf.div(chosen, tf.add(tf.sum(chosen, 1, true), 1e-20)) : chosen;
  return tf.mul(shares, factor);
}

/** [N, E]: 1 for the chosen experts, else 0. A constant to `scores`; to `bias` it gives the load. */
function choice(scores: tf.Tensor, bias: tf.Tensor, routing: Required<Routing>): tf.Tensor {
  const op = tf.customGrad((...args) => {
    const [scores, bias, save] = args as unknown as [tf.Tensor2D, tf.Tensor1D, tf.GradSaveFunc];
    const mask = chosenMask(tf.add(scores, bias), routing);
    save([mask]);
    const gradFunc = (_: tf.Tensor, [mask]: tf.Tensor[]) => [tf.zerosLike(mask), load(mask)];
    return { value: mask, gradFunc };
  });
  return op(scores, bias);
}

function chosenMask(
  scores: tf.Tensor2D,
  { numExpertsPerToken, numExpertGroup, topkGroup }: Required<Routing>,
): tf.Tensor {
  const kept = numExpertGroup > 1 ? tf.mul(scores, keptGroups(scores, numExpertGroup, topkGroup)) : scores;
  return largest(kept as tf.Tensor2D, numExpertsPerToken);
}

/** [N, E]: 1 for the experts in the kept groups. */
function keptGroups(scores: tf.Tensor2D, groups: number, top: number): tf.Tensor {
  const [N, E] = scores.shape;
  const size = E / groups;
  const best = tf.topk(tf.reshape(scores, [N, groups, size]), Math.min(2, size)).values;
  const kept = largest(tf.sum(best, 2) as tf.Tensor2D, top);
  return tf.reshape(tf.mul(tf.expandDims(kept, 2), tf.ones([1, 1, size])), [N, E]);
}

/** 1 for the k largest of each row, else 0. */
function largest(x: tf.Tensor2D, k: number): tf.Tensor {
  if (k === x.shape[1]) return tf.onesLike(x);
  const hot = tf.oneHot(tf.topk(x, k).indices, x.shape[1]); // int32: as float32 it is wrong on wasm (4.22)
  return tf.sum(tf.cast(hot, 'float32'), 1);
}

/** E * (tokens of each expert) - all choices, of a mask [N, E]. */
function load(mask: tf.Tensor): tf.Tensor {
  return tf.sub(tf.mul(tf.sum(mask, 0), mask.shape[1] as number), tf.sum(mask));
}
