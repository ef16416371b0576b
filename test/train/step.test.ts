import * as tf from '@tensorflow/tfjs';
import { describe, expect, test, vi } from 'vitest';
import { AdamW } from '../../src/chunked/index.js';
import { resolveRunConfig } from '../../src/config/index.js';
import { CausalLM } from '../../src/models/index.js';
import { SequenceReader, type TokenStream } from '../../src/train/data/index.js';
import { bitsPerByte, evaluate, gzipBitsPerByte } from '../../src/train/evaluate.js';
import { NonFiniteLossError, trainStep } from '../../src/train/step.js';
import { temporaryFolder, text, tinyRun, writeRun } from '../support/run.js';
import { expectClose } from '../support/tensors.js';

const folder = temporaryFolder();
writeRun(folder);
const { model: config } = resolveRunConfig(tinyRun(), { folder });
const update = { learningRate: 0.01, weightDecay: 0.1, clipNorm: 0 };
const tokens = new TextEncoder().encode(text);
const joined: TokenStream = { tokens, bytesPerToken: 1 };
const half = tokens.length >> 1; // one long document, then many short ones
const starts = Uint32Array.from({ length: half >> 2 }, (_, i) => (i ? half + 4 * i : 0));
const packed: TokenStream = { ...joined, starts };

/** Takes the place of an optimizer: keeps the gradients. */
class GradientsOnly {
  grads: Record<string, Float32Array> = {};
  state = () => ({ step: 0 });
  async step(_: unknown, grads: Record<string, tf.Tensor>) {
    for (const [name, x] of Object.entries(grads)) this.grads[name] = Float32Array.from(x.dataSync());
    return { gradNorm: 0 };
  }
}

describe.each([
  { name: 'rows', stream: joined },
  { name: 'packed documents', stream: packed }, // the micro-batches hold unequal numbers of targets
])('accumulation over $name', ({ stream }) => {
  test.each([2, 1])('micro-batches of %i rows give loss and gradients of one batch of 4', async (rows) => {
    const model = new CausalLM(config, { seed: 7 });
    const lossAndGrads = async (batchSize: number) => {
      const reader = new SequenceReader(stream, { batchSize, seqLen: 16, mode: 'random', seed: 1 });
      const batches = Array.from({ length: 4 / batchSize }, () => reader.next()); // the same windows whatever the batchSize
      const optimizer = new GradientsOnly();
      const { loss } = await trainStep(model, optimizer as unknown as AdamW, batches, update);
      return { loss, grads: optimizer.grads, counts: batches.map(({ numTargets }) => numTargets) };
    };
    const before = tf.memory().numTensors;
    const [whole, parts] = [await lossAndGrads(4), await lossAndGrads(rows)];
    expect(tf.memory().numTensors).toBe(before);
    expect(new Set(parts.counts).size > 1, 'unequal counts').toBe(stream === packed);
    expect(parts.loss).toBeCloseTo(whole.loss, 5);
    expect(Object.keys(whole.grads)).toEqual([...model.weights.keys()]);
    for (const [name, want] of Object.entries(whole.grads)) {
      const size = want.reduce((max, x) => Math.max(max, Math.abs(x)), 0);
      expectClose(name, parts.grads[name], want, 1e-5, size);
    }
    model.dispose();
  });
});

test('recompute: the update is the same to the last bit', async () => {
  const weightsAfter = async (recompute: boolean) => {
    const [model, optimizer] = [new CausalLM(config, { seed: 7 }), new AdamW()];
    const reader = new SequenceReader(joined, { batchSize: 2, seqLen: 16, mode: 'random', seed: 1 });
    const kept = vi.spyOn(model, 'loss');
    const result = await trainStep(model, optimizer, [reader.next()], { ...update, recompute });
    expect(kept.mock.calls[0][2]).toMatchObject({ recompute });
    const weights = [...model.weights.values()].map((weight) => Float32Array.from(weight.dataSync()));
    model.dispose();
    optimizer.dispose();
    return { result, weights };
  };
  expect(await weightsAfter(true)).toEqual(await weightsAfter(false));
});

test('a thousand steps hold no more tensors and no more wasm memory than the second', async () => {
  const model = new CausalLM({ ...config, numLayers: 1, mixers: config.mixers.slice(0, 1) });
  const optimizer = new AdamW();
  const reader = new SequenceReader(joined, { batchSize: 1, seqLen: 8, mode: 'random', seed: 0 });
  const wasmBytes = () => (tf.backend() as unknown as WasmBackend).wasm.asm.memory.buffer.byteLength;
  const losses: number[] = [];
  let [tensors, bytes, memory] = [0, 0, 0];
  for (let step = 1; step <= 1000; step++) {
    losses.push((await trainStep(model, optimizer, [reader.next()], update)).loss);
    if (step === 2) [tensors, bytes, memory] = [tf.memory().numTensors, tf.memory().numBytes, wasmBytes()];
  }
  expect(tf.memory()).toMatchObject({ numTensors: tensors, numBytes: bytes });
  expect(wasmBytes()).toBe(memory);
  const mean = (part: number[]) => part.reduce((sum, x) => sum + x, 0) / part.length;
  expect(mean(losses.slice(-100))).toBeLessThan(0.5 * mean(losses.slice(0, 10)));
  model.dispose();
  optimizer.dispose();
});

interface WasmBackend {
  wasm: { asm: { memory: WebAssembly.Memory } };
}

test('a loss that is not finite leaves the weights as they were', async () => {
  const model = new CausalLM(config);
  const optimizer = new AdamW();
  const norm = model.weights.get('model.norm.weight')!;
  norm.assign(tf.fill(norm.shape, Number.NaN));
  const kept = () => [...model.weights.values()].map((w) => Array.from(w.dataSync()));
  const [before, tensors] = [kept(), tf.memory().numTensors];
  const batch = new SequenceReader(joined, { batchSize: 1, seqLen: 8, mode: 'random', seed: 0 }).next();
  await expect(trainStep(model, optimizer, [batch], update)).rejects.toThrow(NonFiniteLossError);
  expect(kept()).toEqual(before);
  expect(tf.memory().numTensors).toBe(tensors);
  model.dispose();
});

test('an evaluation counts every target once, however the last window overlaps and documents are cut', async () => {
  const model = new CausalLM(config, { seed: 3 });
  for (const stream of [joined, packed]) {
    const [seqLen, batchSize] = [100, 3];
    const reader = new SequenceReader(stream, { batchSize, seqLen, mode: 'sequential' });
    const got = await evaluate(model, reader.pass(), 2);
    expect(got.tokens).toBe(tokens.length - (stream.starts?.length ?? 1));
    expect(got.bpb).toBeCloseTo(got.loss / Math.LN2 / 2, 12);
    let [nats, count] = [0, 0];
    for (const { inputs, targets, cuSeqlens } of new SequenceReader(stream, {
      ...{ seqLen, batchSize: 1 },
      mode: 'sequential',
    }).pass()) {
      const loss = tf.tidy(() => {
        const ids = tf.tensor2d(inputs, [1, seqLen], 'int32');
        const logits = model.forward(ids, undefined, { cuSeqlens }).logits;
        return tf.logSoftmax(logits).arraySync() as number[][][];
      });
      for (const [t, target] of targets.entries())
        if (target >= 0) [nats, count] = [nats - loss[0][t][target], count + 1];
    }
    expect(got.tokens).toBe(count);
    expect(got.loss).toBeCloseTo(nats / count, 5);
  }
  model.dispose();
  await expect(evaluate(model, [], 1)).rejects.toThrow('there is no token to score');
});

test('bits per byte', () => {
  expect(bitsPerByte(Math.LN2 * 8, 1)).toBeCloseTo(8, 12); // a uniform guess of a byte
  expect(bitsPerByte(Math.LN2 * 8, 4)).toBeCloseTo(2, 12);
  expect(gzipBitsPerByte(new Uint8Array(1e5))).toBeLessThan(0.1);
  const noise = Uint8Array.from({ length: 1e4 }, (_, i) => Math.imul(i + 1, 2654435761) >>> 24);
  expect(gzipBitsPerByte(noise)).toBeGreaterThan(gzipBitsPerByte(tokens));
});
