/**
 * What the tests have done in a page, with the built package, and in Node for comparison. Arguments and results are plain data.
 * Tensors come as `{ shape, data }`.
 */
import * as tf from '@tensorflow/tfjs';
import { setWasmPaths } from '@tensorflow/tfjs-backend-wasm';
import { type BackendName, doctor, useBackend } from 'seqmix';
import { deltaRule, dplr, embedding, type GlaOptions, gatedDeltaRule, gla, kda } from 'seqmix/chunked';
import { GatedLinearAttention, KimiDeltaAttention } from 'seqmix/layers';
import { CausalLM, generate } from 'seqmix/models';
import {
  AdamW,
  ByteTokenizer,
  decodeWeights,
  encodeWeights,
  modelWeights,
  SequenceReader,
  streamText,
  trainStep,
} from 'seqmix/train';
import { type Config, glaLayerOptions, kdaLayerOptions, runLayer, runOp, type Tensors } from '../support/goldenRuns.js';

export interface PlainTensor {
  shape: number[];
  data: number[];
}
export type PlainTensors = Record<string, PlainTensor>;

/** @param wasmPath where a page finds the files of the wasm backend; in Node they are found without */
export async function start(backend: BackendName, wasmPath?: string): Promise<string> {
  if (wasmPath) setWasmPaths(wasmPath);
  await useBackend(backend);
  return tf.getBackend();
}

/** As a page does that starts the backend without us. */
export async function startStock(wasmPath: string): Promise<string> {
  setWasmPaths(wasmPath);
  await tf.setBackend('wasm');
  return tf.getBackend();
}

/** What `start` throws. */
export const startError = (...args: Parameters<typeof start>): Promise<string> =>
  start(...args).then(
    () => 'nothing',
    (error: Error) => error.message,
  );

/**
 * Makes webgpu as strict as it is in Node. Reading from the GPU at the call throws, for want of the canvas it goes through; and small
 * tensors are computed on the GPU too, not handed to the CPU.
 */
export function strictGpu(): void {
  Reflect.deleteProperty(globalThis, 'OffscreenCanvas');
  tf.env().set('WEBGPU_CPU_FORWARD', false);
}

/** What reading from the GPU at the call throws; 'nothing' when it works. */
export function syncReadError(): string {
  try {
    return tf.tidy(() => {
      tf.neg(tf.ones([2])).dataSync();
      return 'nothing';
    });
  } catch (error) {
    return (error as Error).message;
  }
}

/** The ops of the golden files, by the files' names for them. */
const ops = { gla, simple_gla: gla, delta_rule: deltaRule, gated_delta_rule: gatedDeltaRule, kda, dplr };
export type OpName = keyof typeof ops;
/** The forms that all of them have, and `parallel`, which only gla has. */
export type Form = NonNullable<GlaOptions['form']>;

export const goldenOp = (op: OpName, config: Config, file: PlainTensors, form: Form): Promise<PlainTensors> =>
  plain(runOp(ops[op] as (inputs: object, options: object) => ReturnType<typeof gla>, config, tensors(file), { form }));

export const goldenLayer = (
  layer: 'gla_layer' | 'kda_layer',
  config: Config,
  file: PlainTensors,
): Promise<PlainTensors> => {
  const made =
    layer === 'gla_layer'
      ? new GatedLinearAttention(glaLayerOptions(config, 'auto'))
      : new KimiDeltaAttention(kdaLayerOptions(config, 'auto'));
  return plain(runLayer(made, config, tensors(file)));
};

/** A layer of ours in a model of TensorFlow.js: the losses of `fit`, and the model's outputs and what it takes to build it again. */
export async function fit(epochs: number) {
  const model = tf.sequential();
  model.add(new GatedLinearAttention({ hiddenSize: 16, numHeads: 2, inputShape: [null, 16], name: 'mixer' }));
  model.add(tf.layers.dense({ units: 1, kernelInitializer: tf.initializers.ones() }));
  model.compile({ optimizer: tf.train.adam(0.01), loss: 'meanSquaredError' });
  const x = tf.tensor(wave(4 * 24 * 16), [4, 24, 16]);
  const y = tf.mean(x, 2, true);
  const { history } = await model.fit(x, y, { epochs, shuffle: false, verbose: 0 });
  const weights = await Promise.all(model.getWeights().map(plainTensor));
  const topology = model.toJSON(null, false) as unknown as object;
  const output = await plainTensor(model.predict(x) as tf.Tensor);
  return { losses: history.loss as number[], input: await plainTensor(x), output, topology, weights };
}

/** A small model with both kinds of mixer, every weight from a seed. */
const newModel = () =>
  new CausalLM(
    {
      vocabSize: 256,
      hiddenSize: 32,
      numLayers: 2,
      mixers: [
        { type: 'gla', useShortConv: true },
        { type: 'softmax_attention', window: 4 },
      ],
      mlp: { intermediateSize: 48 },
    },
    { seed: 3 },
  );

/** Losses and gradient norms of `steps` steps on a text that repeats itself. */
export async function train(steps: number) {
  const tokens = Uint8Array.from({ length: 400 }, (_, i) => (i * i) % 17);
  const reader = new SequenceReader(
    { tokens, bytesPerToken: 1 },
    { batchSize: 2, seqLen: 32, mode: 'random', seed: 1 },
  );
  const model = newModel();
  const optimizer = new AdamW();
  const results: { loss: number; gradNorm: number }[] = [];
  for (let n = 0; n < steps; n++)
    results.push(
      await trainStep(model, optimizer, [reader.next()], { learningRate: 0.01, weightDecay: 0.1, clipNorm: 1 }),
    );
  optimizer.dispose();
  model.dispose();
  return results;
}

/** Tokens in the order they were streamed. */
export async function streamTokens(maxTokens: number, seed: number): Promise<number[]> {
  const model = newModel();
  const tokens: number[] = [];
  for await (const { token } of generate(model, [1, 2, 3], { maxTokens, seed, temperature: 0.9, topK: 20 }))
    tokens.push(token);
  model.dispose();
  return tokens;
}

/** The model of `newModel` as the two files that are served to a page. */
export async function modelFiles(): Promise<Record<'config.json' | 'model.safetensors', Uint8Array>> {
  const model = newModel();
  const pieces = encodeWeights(await modelWeights(model)) as Uint8Array<ArrayBuffer>[];
  model.dispose();
  const bytes = async (...parts: BlobPart[]) => new Uint8Array(await new Blob(parts).arrayBuffer());
  return { 'config.json': await bytes(JSON.stringify(model.config)), 'model.safetensors': await bytes(...pieces) };
}

/** Text from a model whose files lie under `url`. */
export async function streamFrom(url: string, prompt: string, maxTokens: number): Promise<string> {
  const config = await (await fetch(`${url}/config.json`)).json();
  const bytes = new Uint8Array(await (await fetch(`${url}/model.safetensors`)).arrayBuffer());
  const model = new CausalLM(config, { weights: decodeWeights(bytes) });
  let text = '';
  for await (const piece of streamText(model, new ByteTokenizer(), prompt, { maxTokens, seed: 1 })) text += piece;
  model.dispose();
  return text;
}

/** An id that the table does not have. */
export const embedOutside = async (): Promise<number[]> =>
  (await plainTensor(embedding({ ids: tf.tensor1d([1, 7], 'int32'), table: tf.ones([4, 2]) }))).data;

export const report = doctor;

function wave(length: number): Float32Array {
  return Float32Array.from({ length }, (_, i) => Math.fround(((i * 37) % 101) / 50 - 1));
}

const tensors = (file: PlainTensors): Tensors =>
  Object.fromEntries(Object.entries(file).map(([name, { shape, data }]) => [name, tf.tensor(data, shape, 'float32')]));

async function plain(results: Tensors): Promise<PlainTensors> {
  const entries = Object.entries(results).map(async ([name, x]) => [name, await plainTensor(x)] as const);
  return Object.fromEntries(await Promise.all(entries));
}

export const plainTensor = async (x: tf.Tensor): Promise<PlainTensor> => ({
  shape: x.shape,
  data: Array.from(await x.data()),
});
