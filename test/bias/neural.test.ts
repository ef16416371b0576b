/** Two small networks are fitted to a bias that no exact factors make. */
import * as tf from '@tensorflow/tfjs';
import { expect, test } from 'vitest';
import {
  denseBias,
  type FactorNetwork,
  factorError,
  fitNeuralFactors,
  gravityMatrix,
  networkFactors,
} from '../../src/bias/index.js';
import { random, randomTensors, values } from '../support/tensors.js';

function gravity(T: number, seed: number) {
  const next = random(seed);
  const points = Array.from({ length: T }, () => [next(), next()]);
  return { xQ: tf.tensor3d([points]), bias: tf.tensor4d([[gravityMatrix(points, points, 0.1)]]) };
}

/** What networks can make exactly: the bias of two others. */
function taught(T: number) {
  const [x, ...weights] = randomTensors(1, [1, T, 2], [2, 8], [8, 8], [8, 4], [2, 8], [8, 8], [8, 4]);
  const [q, k] = [weights.slice(0, 3), weights.slice(3)] as unknown as FactorNetwork[];
  const bias = tf.tidy(() => denseBias({ phiQ: networkFactors(x, q, 2), phiK: networkFactors(x, k, 2) }));
  tf.dispose(weights);
  return { xQ: x, bias };
}

test('the error falls to a small part of the variance; the same seed gives the same losses', async () => {
  const example = taught(32);
  const steps: number[] = [];
  const options = { rank: 4, hidden: 32, steps: 400, learningRate: 1e-2, seed: 3 };
  const fitted = await fitNeuralFactors(example, { ...options, onStep: (step) => steps.push(step) });
  const again = await fitNeuralFactors(example, { ...options, steps: 5 });
  expect(steps).toEqual(Array.from({ length: 400 }, (_, n) => n));
  expect(again.losses).toEqual(fitted.losses.slice(0, 5));
  const variance = tf.tidy(() => tf.moments(example.bias).variance.dataSync()[0]);
  const error = tf.tidy(() => factorError(fitted.factors(example.xQ), example.bias).dataSync()[0]);
  expect(error).toBeLessThan(0.02 * variance);
  expect(error).toBeLessThanOrEqual(1.1 * fitted.losses[399]);
  fitted.dispose();
  again.dispose();
  tf.dispose(example);
});

test('examples may come from a function, as many as there are steps; nothing is left behind', async () => {
  const before = tf.memory().numTensors;
  const asked: number[] = [];
  const fitted = await fitNeuralFactors(
    (step) => {
      asked.push(step);
      return gravity(8, step);
    },
    { rank: 2, hidden: 8, steps: 6 },
  );
  expect(asked.slice(-6)).toEqual([0, 1, 2, 3, 4, 5]);
  expect(tf.memory().numTensors - before).toBe(6);
  fitted.dispose();
  expect(tf.memory().numTensors).toBe(before);
});

test('the rate falls by 0.95 after every 50 steps, or as it is told', async () => {
  const example = gravity(6, 2);
  const run = async (decay: { factor: number; every: number } | undefined, steps: number) => {
    const fitted = await fitNeuralFactors(example, { rank: 2, hidden: 4, steps, seed: 1, decay });
    fitted.dispose();
    return fitted.losses;
  };
  const [published, same, constant] = [
    await run(undefined, 53),
    await run({ factor: 0.95, every: 50 }, 53),
    await run({ factor: 1, every: 50 }, 53),
  ];
  expect(published).toEqual(same);
  expect(published.slice(0, 51)).toEqual(constant.slice(0, 51)); // the loss before step 51 is that after 50 steps
  expect(published[51]).not.toBe(constant[51]);
  const stopped = await run({ factor: 0, every: 3 }, 6);
  expect(stopped.slice(3)).toEqual([stopped[3], stopped[3], stopped[3]]);
  expect(stopped[2]).not.toBe(stopped[3]);
  tf.dispose(example);
});

test('shapes are checked', () => {
  const weights = [tf.zeros([3, 4]), tf.zeros([4, 4]), tf.zeros([4, 6])] as const;
  expect(() => networkFactors(tf.zeros([1, 5, 2]), weights, 2)).toThrow(
    'networkFactors: x must have shape [B,T,3], got [1,5,2]',
  );
  expect(() => networkFactors(tf.zeros([1, 5, 3]), weights, 4)).toThrow('numHeads must divide the 6 outputs, got 4');
  expect(values(networkFactors(tf.zeros([1, 5, 3]), weights, 2)).length).toBe(30);
});
