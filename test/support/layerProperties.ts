/** What every layer must hold to, written once: `describeLayer` runs all of it on a `LayerCase`. */
import * as tf from '@tensorflow/tfjs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { useBackend } from '../../src/index.js';
import type { LayerState, SeqLayer, TfLayerArgs } from '../../src/layers/seqLayer.js';
import { flat, floats, inPieces, layerGrads, layerInputs, randomUpstream, type Tensors } from './layerGrads.js';
import { anyDocuments, inScope, spliceTime, timeSlice } from './opProperties.js';
import { expectClose, normal, values } from './tensors.js';

export interface LayerCase {
  title: string;
  /** The layer with this case's options. Two of one name start from the same weights. */
  make: (extra?: TfLayerArgs) => SeqLayer;
  /** What the layer reads; default standard normal [B, T, hiddenSize]. */
  input?: (seed: number, B: number, T: number) => tf.Tensor;
  /** False: packed documents take no state and give none. Default true. */
  packedState?: boolean;
  /** States that are covariances, symmetric and without negative eigenvalues. */
  covariances?: readonly string[];
  /** True: the parts of its state belong together, so states are as the layer made them; by default they are drawn. */
  wholeState?: boolean;
  /** True: it has kinks (relu, a clamp), across which a difference is no slope. */
  kinks?: boolean;
}

export function describeLayer(layer: LayerCase): void {
  describe(layer.title, () => {
    test('cut anywhere, with the state carried over, equals one pass, also in gradients', () =>
      always(anyCall, ({ B, T, seed, cuts }) => expectPiecesEqualOnePass(layer, B, T, seed, cuts)));
    test('token by token equals one pass', () =>
      always(anyCall, ({ B, T, seed }) => expectPiecesEqualOnePass(layer, B, T, seed, upTo(T))));
    test('packed documents equal each alone', () =>
      always(fc.tuple(anyDocuments(), fc.nat(1e6)), ([offsets, seed]) =>
        expectPackedEqualsAlone(layer, offsets, seed),
      ));
    test('no output depends on a later token', () =>
      always(anyCall, ({ B, T, seed }) => expectCausal(layer, B, T, seed)));
    test('the state holds stateSize bytes, and starts where no state does', () =>
      always(anyCall, ({ B, T, seed }) => expectState(layer, B, T, seed)));
    test('leaves no tensor behind', () => expectNoLeak(layer));
    if (!layer.kinks) test('gradients are the slopes', () => inScope(() => expectSlopes(layer)));
    test('the cpu backend gives the same outputs, states and gradients', () => expectSameOnCpu(layer));
    test('a config makes the same layer again', () => expectConfigRoundTrip(layer));
    test('a saved and loaded model gives the same outputs', () => expectSaves(layer));
    test('trains inside a model', () => expectTrains(layer));
  });
}

/** Input of a case. */
export function inputOf({ make, input }: LayerCase, seed: number, B: number, T: number): tf.Tensor {
  const { hiddenSize } = make().options;
  return input ? input(seed, B, T) : tf.tensor(normal(seed, B * T * hiddenSize), [B, T, hiddenSize]);
}

/** The model after `model.save`, JSON and `tf.loadLayersModel`. */
export async function savedAndLoaded(model: tf.LayersModel): Promise<tf.LayersModel> {
  let saved: tf.io.ModelArtifacts = {};
  await model.save(
    tf.io.withSaveHandler(async (artifacts) => {
      saved = artifacts;
      return { modelArtifactsInfo: { dateSaved: new Date(0), modelTopologyType: 'JSON' } };
    }),
  );
  const modelTopology = JSON.parse(JSON.stringify(saved.modelTopology));
  return tf.loadLayersModel(tf.io.fromMemory({ ...saved, modelTopology }));
}

/** One name, so that its weights start the same in every test and on every backend. */
const probe = ({ make }: LayerCase): SeqLayer => make({ name: 'probe' });

const anyCall = fc.record({
  B: fc.integer({ min: 1, max: 2 }),
  T: fc.integer({ min: 1, max: 14 }),
  seed: fc.nat(1e6),
  cuts: fc.array(fc.integer({ min: 1, max: 13 }), { maxLength: 3 }),
});

const always = <T>(values: fc.Arbitrary<T>, check: (value: T) => void) =>
  fc.assert(
    fc.property(values, (value) => inScope(() => check(value))),
    { numRuns: 10 },
  );

/** Of the largest value: float32 sums of a few dozen terms, in another order. */
const TOLERANCE = 1e-5;

/** `terms` by name: the size of what is summed (see `expectClose`). */
function expectSame(got: Tensors, want: Tensors, terms: Record<string, number> = {}): void {
  expect(Object.keys(got)).toEqual(Object.keys(want));
  for (const [name, t] of Object.entries(want)) expectClose(name, got[name], t, TOLERANCE, terms[name]);
}

/**
 * From a drawn state, not from zeros: after one token the state has rank one, o = (q . k) v, and a norm over o then takes its gradient
 * on q from terms that cancel.
 */
function expectPiecesEqualOnePass(c: LayerCase, B: number, T: number, seed: number, cuts: number[]): void {
  const layer = probe(c);
  const x = inputOf(c, seed, B, T);
  const state = randomState(c, layer, B, seed);
  const want = layerGrads(layer, x, { state });
  const got = layerGrads(layer, x, { state, run: inPieces(layer, cuts) });
  expectSame(got.outputs, want.outputs);
  expectSame(got.grads, want.grads, cancelledTerms(layer, x, state, want.grads));
  layer.dispose();
}

/**
 * The size of what is summed in each gradient, from what it loses to rounding: its change, over 2^-23, when every x moves by one
 * part in 2^23. Where relu leaves a head one small q, o is small, and the gradient of the norm over it is a difference of terms
 * hundreds of times its size.
 */
function cancelledTerms(layer: SeqLayer, x: tf.Tensor, state: LayerState, grads: Tensors): Record<string, number> {
  if (x.dtype !== 'float32') return {};
  const rounding = tf.mul(2 ** -23, tf.sign(randomUpstream('rounding', x.shape)));
  const moved = layerGrads(layer, tf.add(x, tf.mul(x, rounding)), { state }).grads;
  const change = (name: string) => tf.max(tf.abs(tf.sub(moved[name], grads[name]))).dataSync()[0];
  return Object.fromEntries(Object.keys(grads).map((name) => [name, Math.max(1, change(name) * 2 ** 23)]));
}

function expectPackedEqualsAlone(c: LayerCase, cuSeqlens: Int32Array, seed: number): void {
  const layer = probe(c);
  const N = cuSeqlens.length - 1;
  const x = inputOf(c, seed, 1, cuSeqlens[N]);
  const states = c.packedState === false ? undefined : randomState(c, layer, N, seed);
  const packed = layer.forward(x, states, { cuSeqlens });
  const alone = upTo(N).map((n) => {
    const own = states && mapTensors(states, (t) => tf.slice(t, n - 1, 1));
    return layer.forward(timeSlice(x, cuSeqlens[n - 1], cuSeqlens[n]), own);
  });
  const join = (parts: tf.Tensor[], axis: number) => tf.concat(parts, axis);
  const y = join(
    alone.map((document) => document.y),
    1,
  );
  const state = mapTensors(states ?? {}, (_, name) =>
    join(
      alone.map((document) => document.state[name]),
      0,
    ),
  );
  expectSame(flat(packed), flat({ y, state }));
  layer.dispose();
}

function expectCausal(c: LayerCase, B: number, T: number, seed: number): void {
  const layer = probe(c);
  const t = seed % T;
  const [x, other] = [inputOf(c, seed, B, T), inputOf(c, seed + 1, B, T)];
  const [before, after] = [x, spliceTime(x, other, t)].map((all) => values(timeSlice(layer.forward(all).y, 0, t)));
  expect(Array.from(after), `y before token ${t}`).toEqual(Array.from(before));
  layer.dispose();
}

function expectState(c: LayerCase, B: number, T: number, seed: number): void {
  const layer = probe(c);
  const bytes = (state: LayerState) => Object.values(state).reduce((sum, t) => sum + 4 * t.size, 0);
  const start = layer.initialState(B);
  const x = inputOf(c, seed, B, T);
  const [given, absent] = [layer.forward(x, start), layer.forward(x)];
  expect([bytes(start), bytes(given.state)]).toEqual([layer.stateSize(B), layer.stateSize(B, T)]);
  expectSame(flat(given), flat(absent));
  layer.dispose();
}

function expectNoLeak(c: LayerCase): void {
  const x = inputOf(c, 3, 2, 5);
  const bare = tf.memory().numTensors;
  const layer = probe(c);
  const weights = layer.weightsByName().size;
  const built = tf.memory();
  expect(built.numTensors - bare, 'tensors of the weights').toBe(weights);
  const first = layer.forward(x);
  const second = layer.forward(x, first.state);
  const results = [first, second].flatMap((output) => Object.values(flat(output)));
  expect(tf.memory().numTensors - built.numTensors, 'tensors after two calls').toBe(results.length);
  tf.dispose([...results, layer.apply(x) as tf.Tensor]);
  inScope(() => void layerGrads(layer, x, { upstream: (name, shape) => (name === 'y' ? tf.ones(shape) : undefined) }));
  expect(tf.memory().numBytes, 'bytes after a gradient').toBe(built.numBytes);
  layer.dispose();
  expect(tf.memory().numTensors, 'tensors after dispose').toBe(bare);
  x.dispose();
}

/** Along a random direction, each gradient is the central difference (of two steps, so that the cubic term cancels). */
function expectSlopes(c: LayerCase): void {
  const layer = probe(c);
  const x = inputOf(c, 7, 2, 6);
  const state = randomState(c, layer, 2, 7);
  const { grads } = layerGrads(layer, x, { state });
  for (const [name, gradient] of Object.entries(grads)) {
    const direction = tf.tensor(normal(11, gradient.size), gradient.shape);
    const value = tf.clone(layerInputs(layer, x, state)[name]);
    const objective = (step: number) => objectiveWith(layer, name, tf.add(value, tf.mul(direction, step)), x, state);
    const difference = (step: number) => (objective(step) - objective(-step)) / (2 * step);
    const slope = (4 * difference(2e-3) - difference(4e-3)) / 3;
    objectiveWith(layer, name, value, x, state); // puts a weight back
    const error = Math.abs(slope - dot(gradient, direction));
    expect(error, `${name}: slope ${slope}`).toBeLessThan(3e-3 * Math.max(1, Math.sqrt(dot(gradient, gradient))));
  }
  layer.dispose();
}

/** The objective of `layerGrads`, summed in float64, with one input replaced. */
function objectiveWith(layer: SeqLayer, name: string, value: tf.Tensor, x: tf.Tensor, state: LayerState): number {
  layer.weightsByName().get(name)?.assign(value);
  const own = mapTensors(state, (t, key) => (name === `state.${key}` ? value : t));
  const outputs = floats(flat(layer.forward(name === 'x' ? value : x, own)));
  return Object.entries(outputs).reduce((sum, [key, t]) => sum + dot(t, randomUpstream(key, t.shape)), 0);
}

async function expectSameOnCpu(c: LayerCase): Promise<void> {
  const run = () => {
    const all: Record<string, Float32Array> = {};
    inScope(() => {
      const layer = probe(c);
      const { outputs, grads } = layerGrads(layer, inputOf(c, 5, 2, 11), { state: randomState(c, layer, 2, 5) });
      for (const [name, t] of Object.entries(outputs)) all[name] = Float32Array.from(values(t));
      for (const [name, t] of Object.entries(grads)) all[`gradient on ${name}`] = Float32Array.from(values(t));
      layer.dispose();
    });
    return all;
  };
  const wasm = run();
  await useBackend('cpu');
  try {
    const cpu = run();
    expect(Object.keys(wasm)).toEqual(Object.keys(cpu));
    for (const name of Object.keys(cpu)) expectClose(name, wasm[name], cpu[name], TOLERANCE);
  } finally {
    await useBackend('wasm');
  }
}

function expectConfigRoundTrip({ make }: LayerCase): void {
  const layer = make({ name: 'first', trainable: false });
  const Class = layer.constructor as unknown as new (config: object) => SeqLayer;
  const again = new Class(JSON.parse(JSON.stringify(layer.getConfig())));
  expect(again.getConfig()).toEqual(layer.getConfig());
  expect(again.options).toEqual(layer.options);
  const specs = (x: SeqLayer) => JSON.parse(JSON.stringify(x.weightSpecs())); // two functions that draw the same are not equal
  expect(specs(again)).toEqual(specs(layer));
}

async function expectSaves(c: LayerCase): Promise<void> {
  const x = inputOf(c, 9, 2, 4);
  const input = tf.input({ shape: [null, ...x.shape.slice(2)], dtype: x.dtype });
  const layers = [c.make(), c.make()];
  const outputs = layers.map((layer) => layer.apply(input) as tf.SymbolicTensor);
  const model = tf.model({ inputs: input, outputs });
  const loaded = await savedAndLoaded(model);
  const [want, got] = [model, loaded].map((m) => m.predict(x) as tf.Tensor[]);
  for (const n of [0, 1]) expect(Array.from(values(got[n]))).toEqual(Array.from(values(want[n])));
  expect(loaded.layers.map((l) => l.getConfig())).toEqual(model.layers.map((l) => l.getConfig()));
  const names = layers.flatMap((l) => Object.keys(l.weightSpecs()).map((name) => `${l.name}/${name}`));
  expect(loaded.weights.map((w) => w.originalName).sort()).toEqual(names.sort()); // constants come last
  tf.dispose([x, want, got]);
  model.dispose();
  loaded.dispose();
}

/** Before a dense layer in a model: a few steps of Adam lower the loss and move every weight. */
async function expectTrains(c: LayerCase): Promise<void> {
  const layer = probe(c);
  const x = inputOf(c, 13, 4, 5);
  const input = tf.input({ shape: x.shape.slice(1), dtype: x.dtype });
  const head = tf.layers.dense({ units: 3, kernelInitializer: tf.initializers.glorotUniform({ seed: 1 }) });
  const model = tf.model({ inputs: input, outputs: head.apply(layer.apply(input)) as tf.SymbolicTensor });
  const target = tf.tensor(normal(14, 4 * 5 * 3), [4, 5, 3]);
  const weights = [...layer.weightsByName()].filter(([, weight]) => weight.trainable);
  const start = weights.map(([, w]) => Array.from(values(w)));
  model.compile({ optimizer: tf.train.adam(0.02), loss: 'meanSquaredError' });
  const { history } = await model.fit(x, target, { epochs: 10, batchSize: 4, verbose: 0 });
  const [first, last] = [history.loss[0], history.loss[9]] as number[];
  expect(last).toBeLessThan(0.97 * first);
  for (const [n, [name, w]] of weights.entries()) expect(Array.from(values(w)), name).not.toEqual(start[n]);
  tf.dispose([x, target]);
  model.dispose();
}

/** A state of N sequences that have read 3 tokens, with other values. */
function randomState(c: LayerCase, layer: SeqLayer, N: number, seed: number): LayerState {
  const { state } = layer.forward(inputOf(c, seed, N, 3));
  return mapTensors(state, (t, name) => {
    if (t.dtype !== 'float32' || c.wholeState) return t;
    const drawn = randomUpstream(`${name}${seed}`, t.shape);
    return c.covariances?.includes(name) ? tf.div(tf.matMul(drawn, drawn, false, true), t.shape[3] as number) : drawn;
  });
}

function mapTensors(tensors: Tensors, f: (t: tf.Tensor, name: string) => tf.Tensor): Tensors {
  return Object.fromEntries(Object.entries(tensors).map(([name, t]) => [name, f(t, name)]));
}

/** In float64. */
function dot(a: tf.Tensor, b: tf.Tensor): number {
  const [x, y] = [values(a), values(b)];
  return Array.from(x).reduce((sum, v, i) => sum + v * y[i], 0);
}

const upTo = (n: number) => Array.from({ length: n }, (_, i) => i + 1);
