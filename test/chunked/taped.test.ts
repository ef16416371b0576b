/** Fused ops know whether a gradient can be asked for: without a tape they keep nothing for a backward pass, and give the same bits. */
import * as tf from '@tensorflow/tfjs';
import { beforeAll, describe, expect, test, vi } from 'vitest';
import { gla } from '../../src/chunked/index.js';
import { recomputed } from '../../src/chunked/recomputed.js';
import { WasmContext } from '../../src/chunked/wasm/runtime.js';
import { useBackend } from '../../src/index.js';
import { deltaOp, dplrOp } from '../support/deltaOps.js';
import {
  drawGate,
  drawSample,
  inScope,
  type MixingOp,
  type OpOptions,
  type Sizes,
  type Tensors,
} from '../support/opProperties.js';
import { outputsAndGrads } from '../support/tensors.js';

const glaOp: MixingOp = {
  ...dplrOp(),
  tokens: ({ B, T, H, K, V }) => ({ q: [B, T, H, K], k: [B, T, H, K], v: [B, T, H, V], g: [B, T, H, K] }),
  draw: { g: drawGate('mixed') },
  run: (inputs, options) => gla(inputs as never, options as never),
};
const ops = {
  deltaRule: deltaOp('deltaRule'),
  gatedDeltaRule: deltaOp('gatedDeltaRule'),
  kda: deltaOp('kda', { groups: 2 }),
  dplr: dplrOp(),
  gla: glaOp,
};
const sizes = { B: 1, H: 2, K: 12, V: 11 };
const bits = (x: tf.Tensor) => Array.from(new Int32Array(x.dataSync().slice().buffer));

beforeAll(() => useBackend('wasm'));

/** Outputs of the op, and the sizes of the tensors that its kernel made. */
function watched(op: MixingOp, inputs: Tensors, options: OpOptions, around: (f: () => Tensors) => Tensors) {
  const made: number[] = [];
  const { out } = WasmContext.prototype;
  const spy = vi.spyOn(WasmContext.prototype, 'out').mockImplementation(function (this: WasmContext, shape, dtype) {
    made.push(tf.util.sizeFromShape(shape));
    return out.call(this, shape, dtype);
  });
  try {
    return { outputs: around(() => op.run(inputs, options)), made };
  } finally {
    spy.mockRestore();
  }
}

/** Runs f where a gradient could follow. */
function onTape(f: () => Tensors): Tensors {
  let outputs: Tensors = {};
  tf.grad((x) => {
    outputs = f();
    for (const y of Object.values(outputs)) tf.keep(y);
    return tf.sum(x);
  })(tf.scalar(1));
  return outputs;
}

describe.each(Object.entries(ops))('%s', (_, op) => {
  const lengths: { name: string; T: number; cuSeqlens?: Int32Array }[] = [
    ...[1, 5, 16, 257, 600].map((T) => ({ name: `${T} tokens`, T })),
    { name: 'documents', T: 600, cuSeqlens: Int32Array.of(0, 300, 301, 600) },
  ];
  test.each(lengths)('$name: the same bits with and without a tape, and less made without', ({ T, cuSeqlens }) =>
    inScope(() => {
      const { inputs } = drawSample(op, { ...sizes, T }, { seed: 3, cuSeqlens });
      const free = watched(op, inputs, { cuSeqlens }, (f) => f());
      const taped = watched(op, inputs, { cuSeqlens }, onTape);
      for (const [name, y] of Object.entries(free.outputs)) expect(bits(taped.outputs[name]), name).toEqual(bits(y));
      expect(free.made).toHaveLength(Object.keys(free.outputs).length);
      expect(taped.made.length).toBeGreaterThan(free.made.length);
      for (const y of Object.values(taped.outputs)) y.dispose();
    }),
  );

  test('gradients of an op inside a recomputed block, inside another, and in a tidy are those of the op', () =>
    inScope(() => {
      const { inputs, upstreams } = drawSample(op, { ...sizes, T: 40 } satisfies Sizes, { seed: 4 });
      const { v, ...rest } = inputs;
      const run = (x: tf.Tensor) => op.run({ ...rest, v: x }, {}).o;
      const gradient = (f: (x: tf.Tensor) => tf.Tensor) =>
        bits(outputsAndGrads(({ v }) => [f(v)], { v }, [upstreams.o]).grads.v);
      const want = gradient(run);
      const block = (x: tf.Tensor) => recomputed(run, [x]);
      expect(gradient(block)).toEqual(want);
      expect(gradient((x) => recomputed(block, [x]))).toEqual(want);
      expect(gradient((x) => tf.tidy(() => run(x)))).toEqual(want);
    }));

  test('gradients of variables, by variableGrads and by an optimizer', () =>
    inScope(() => {
      const { inputs, upstreams } = drawSample(op, { ...sizes, T: 40 }, { seed: 5 });
      const { v, ...rest } = inputs;
      const weight = tf.variable(v);
      const loss = () => tf.sum(tf.mul(op.run({ ...rest, v: weight }, {}).o, upstreams.o)) as tf.Scalar;
      const { grads } = outputsAndGrads(({ v }) => [op.run({ ...rest, v }, {}).o], { v }, [upstreams.o]);
      expect(bits(tf.variableGrads(loss, [weight]).grads[weight.name])).toEqual(bits(grads.v));
      tf.train.sgd(1).minimize(loss, false, [weight]);
      expect(bits(weight)).toEqual(bits(tf.sub(v, grads.v)));
      weight.dispose();
    }));
});
