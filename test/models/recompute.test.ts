/** Blocks that are run again in the backward pass: the same numbers, less memory. */
import * as tf from '@tensorflow/tfjs';
import { describe, expect, test, vi } from 'vitest';
import { WasmContext } from '../../src/chunked/wasm/runtime.js';
import { CausalLM } from '../../src/models/index.js';
import { idTensor, lively, smallConfigs, tokenIds } from './support.js';

const [B, T] = [2, 20];
const packed = { cuSeqlens: Int32Array.of(0, 3, 4, 17, T) };

/** Loss and gradients by weight, and the most bytes in tensors meanwhile. */
function lossAndGrads(model: CausalLM, batch: number, options: object) {
  let peak = 0;
  const { out } = WasmContext.prototype;
  const spy = vi.spyOn(WasmContext.prototype, 'out').mockImplementation(function (this: WasmContext, ...args) {
    peak = Math.max(peak, tf.memory().numBytes);
    return out.apply(this, args);
  });
  try {
    return tf.tidy(() => {
      const loss = () =>
        model.loss(idTensor(tokenIds(1, batch * T), batch), idTensor(tokenIds(2, batch * T), batch), options);
      const { value, grads } = tf.variableGrads(loss, [...model.weights.values()]);
      const named = Object.entries(grads).map(([name, grad]) => [name, Float32Array.from(grad.dataSync())]);
      return { loss: value.dataSync()[0], grads: Object.fromEntries(named) as Record<string, Float32Array>, peak };
    });
  } finally {
    spy.mockRestore();
  }
}

describe.each(Object.entries(smallConfigs))('%s', (_, config) => {
  test.each([
    { name: 'rows', batch: B, options: {} },
    { name: 'packed documents', batch: 1, options: packed },
  ])('$name: loss and every gradient are the same to the last bit, and nothing leaks', ({ batch, options }) => {
    const model = new CausalLM({ ...config, ...lively }, { seed: 3 });
    const before = tf.memory();
    const want = lossAndGrads(model, batch, options);
    const got = lossAndGrads(model, batch, { ...options, recompute: true });
    expect(Object.keys(want.grads)).toHaveLength(model.weights.size);
    expect({ ...got, peak: 0 }).toEqual({ ...want, peak: 0 });
    expect(tf.memory()).toMatchObject({ numTensors: before.numTensors, numBytes: before.numBytes });
    model.dispose();
  });
});

test('at its peak a deep model holds one block, not all of them', () => {
  const peaks = (recompute: boolean) =>
    [2, 10].map((numLayers) => {
      const model = new CausalLM({ vocabSize: 37, hiddenSize: 16, numLayers, mlp: { intermediateSize: 64 } });
      const held = tf.memory().numBytes;
      const { peak } = lossAndGrads(model, B, { recompute });
      model.dispose();
      return peak - held;
    });
  const [kept, again] = [peaks(false), peaks(true)].map(([shallow, deep]) => deep - shallow); // what 8 more blocks cost
  expect(again).toBeLessThan(kept / 4);
});

test('without gradients it is a forward pass', () => {
  const model = new CausalLM({ ...smallConfigs[Object.keys(smallConfigs)[0] as keyof typeof smallConfigs], ...lively });
  tf.tidy(() => {
    const [ids, targets] = [idTensor(tokenIds(1, T)), idTensor(tokenIds(2, T))];
    const losses = [true, false].map((recompute) => model.loss(ids, targets, { recompute }).dataSync()[0]);
    expect(losses[0]).toBe(losses[1]);
  });
  model.dispose();
});
