import * as tf from '@tensorflow/tfjs';
import { describe, expect, test } from 'vitest';
import { glu } from '../../src/chunked/index.js';
import { gluOracle } from '../oracle/primitives.js';
import { expectClose, outputsAndGrads, randomTensors, values } from '../support/tensors.js';

const forms = ['auto', 'plain'] as const;

describe.each([[[1]], [[2]], [[3, 5]], [[2, 7, 16]]])('glu %j', (shape) => {
  const draw = () => {
    const [value, logits, dy] = randomTensors(7, shape, shape, shape);
    const gate = tf.mul(logits, 8);
    return { value, gate, dy, want: gluOracle(values(value), values(gate), values(dy)) };
  };

  test.each(forms)('%s form equals the oracle in output and gradients', (form) => {
    const { value, gate, dy, want } = draw();
    const { outputs, grads } = outputsAndGrads((all) => [glu(all, { form })], { value, gate }, [dy]);
    expectClose('y', outputs[0], want.y, 5e-7);
    expectClose('dValue', grads.value, want.dValue, 5e-7);
    expectClose('dGate', grads.gate, want.dGate, 5e-7);
  });

  test.each(forms)('%s form of one tensor: value first, then gate', (form) => {
    const { value, gate, dy, want } = draw();
    const x = tf.concat([value, gate], -1);
    const { outputs, grads } = outputsAndGrads((all) => [glu(all, { form })], { x }, [dy]);
    const [dValue, dGate] = tf.split(grads.x, 2, -1);
    expect(outputs[0].shape).toEqual(shape);
    expectClose('y', outputs[0], want.y, 5e-7);
    expectClose('dValue', dValue, want.dValue, 5e-7);
    expectClose('dGate', dGate, want.dGate, 5e-7);
  });
});

test('the slope of a gate far below 0 keeps its digits in the kernel', () => {
  const gate = tf.tensor1d([-80, -30, 30, 80]);
  const value = tf.onesLike(gate);
  const { grads } = outputsAndGrads((all) => [glu(all)], { value, gate }, [value]);
  const got = values(grads.gate);
  for (const [i, g] of [80, 30, 30, 80].entries()) expect(got[i] / Math.exp(-g)).toBeCloseTo(1, 5);
});

test('NaN stays in its place, and gates of +-1e30 give none', () => {
  const gate = tf.tensor1d([1, Number.NaN, 1, -1e30, 1e30]);
  const value = tf.ones([5]);
  const { outputs, grads } = outputsAndGrads((all) => [glu(all)], { value, gate }, [value]);
  const bad = [false, true, false, false, false];
  for (const t of [outputs[0], grads.gate, grads.value]) expect(Array.from(values(t), Number.isNaN)).toEqual(bad);
});

test('glu leaves no tensor behind', () => {
  const [x, gate] = randomTensors(1, [4, 6], [4, 6]);
  const before = tf.memory().numTensors;
  for (const form of forms) {
    tf.dispose([glu({ x }, { form }), glu({ value: x, gate }, { form })]);
    const sum = (t: tf.Tensor, g: tf.Tensor) =>
      tf.add(tf.sum(glu({ x: t }, { form })), tf.sum(glu({ value: t, gate: g }, { form }))) as tf.Scalar;
    tf.tidy(() => void tf.grads(sum)([x, gate]));
  }
  expect(tf.memory().numTensors).toBe(before);
});

test('errors name the op, what was expected and what came', () => {
  expect(() => glu({ value: tf.ones([4, 4]), gate: tf.ones([4, 5]) })).toThrow(
    'glu: gate must have shape [4,4], got [4,5]',
  );
  expect(() => glu({ x: tf.ones([4, 5]) })).toThrow(
    'glu: the last axis of x must be even (value, then gate), got shape [4,5]',
  );
});
