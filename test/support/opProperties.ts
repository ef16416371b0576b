/**
 * Properties every mixing op must have, written once. An op is described by a `MixingOp`; a property test then draws sizes with
 * fast-check, draws a `Sample`, and calls the checks below. Everything is compared with the op's float64 oracle: outputs, final
 * states, and the gradient on every input under random upstreams.
 */
import * as tf from '@tensorflow/tfjs';
import fc from 'fast-check';
import { expect } from 'vitest';
import { expectClose, normal, outputsAndGrads, random, values } from './tensors.js';

export type Sizes = { B: number; T: number; H: number; K: number; V: number };
export type Tensors = Record<string, tf.Tensor>;
export type Arrays = Record<string, ArrayLike<number>>;
export type OpOptions = { form?: string; chunkSize?: number; cuSeqlens?: Int32Array };

/** Floats of a tensor of this shape. */
export type Draw = (seed: number, length: number, shape: number[]) => Float32Array;

/** What the properties need to know of an op. Every shape function takes the sizes and the number of states N. */
export interface MixingOp {
  /** Inputs with a time axis, [B, T, ...], by name. */
  tokens: (sizes: Sizes) => Record<string, number[]>;
  /** Inputs that all tokens share, by name; none by default. */
  shared?: (sizes: Sizes) => Record<string, number[]>;
  /** Initial states, by name, with the final state that replaces them: `{ initialState: { shape, final: 'finalState' } }`. */
  states: (sizes: Sizes, N: number) => Record<string, { shape: number[]; final: string }>;
  /** Outputs with a time axis, by name. */
  outputs: (sizes: Sizes) => Record<string, number[]>;
  /** How to draw an input that is not standard normal. */
  draw?: Record<string, Draw>;
  /** The op; returns outputs and final states by name. */
  run: (inputs: Tensors, options: OpOptions) => Tensors;
  /**
   * Outputs and final states by name, and the gradient on input x as dx (`q` -> `dq`, `initialState` -> `dInitialState`); as `terms.dx` (`terms.o` of an output), one number,
   * the size of what is summed where terms cancel.
   */
  oracle: (inputs: Arrays, sizes: Sizes, options: OpOptions, upstream: Arrays) => Arrays;
}

/** One drawn instance: inputs, and upstream gradients for every output and final state. */
export interface Sample {
  op: MixingOp;
  sizes: Sizes;
  cuSeqlens?: Int32Array;
  inputs: Tensors;
  upstreams: Tensors;
}

/** Sizes small enough for a few hundred runs in seconds; `limits` changes the upper ends. */
export function anySizes(limits: Partial<Sizes> = {}): fc.Arbitrary<Sizes> {
  const max = { B: 2, T: 40, H: 2, K: 9, V: 9, ...limits };
  const upTo = (n: number) => fc.integer({ min: 1, max: n });
  return fc.record({ B: upTo(max.B), T: upTo(max.T), H: upTo(max.H), K: upTo(max.K), V: upTo(max.V) });
}

/** Document lengths to pack into one row, and their offsets. */
export function anyDocuments(maxDocuments = 4, maxLength = 12): fc.Arbitrary<Int32Array> {
  const lengths = fc.array(fc.integer({ min: 1, max: maxLength }), { minLength: 1, maxLength: maxDocuments });
  return lengths.map((ns) => Int32Array.from([0, ...ns.map((_, i) => ns.slice(0, i + 1).reduce((a, b) => a + b))]));
}

/** How strongly a drawn gate forgets; `mixed` puts all strengths, 0 and -Infinity side by side. */
export const gateStrengths = ['mild', 'strong', 'hard', 'closed', 'mixed'] as const;
export type GateStrength = (typeof gateStrengths)[number];

/** Log-space gates g <= 0: mild ~ -0.05, strong ~ -3, hard ~ -1000, closed: half of them -Infinity. */
export function drawGate(strength: GateStrength): (seed: number, length: number) => Float32Array {
  return (seed, length) => {
    const next = random(seed + 77);
    const kinds = ['open', 'mild', 'strong', 'hard', 'closed'];
    return normal(seed, length).map((x) => {
      const kind = strength === 'mixed' ? kinds[Math.floor(next() * kinds.length)] : strength;
      if (kind === 'open') return 0;
      if (kind === 'closed' && next() < 0.5) return Number.NEGATIVE_INFINITY;
      return -Math.abs(x) * { mild: 0.05, strong: 3, hard: 1000, closed: 0.05 }[kind as 'mild'];
    });
  };
}

/** Uniform in [low, high). */
export function drawUniform(low: number, high: number): Draw {
  return (seed, length) => {
    const next = random(seed + 55);
    return Float32Array.from({ length }, () => low + (high - low) * next());
  };
}

/** Rows of the last axis of length 1, in directions of their own. */
export const drawUnitRows: Draw = (seed, length, shape) => {
  const x = normal(seed, length);
  const width = shape[shape.length - 1];
  return x.map((value, i) => value / Math.hypot(...x.slice(i - (i % width), i - (i % width) + width)));
};

/** The same direction for all rows of the last axis, of length 1. */
export const drawSameRows: Draw = (seed, length, shape) => {
  const width = shape[shape.length - 1];
  const row = drawUnitRows(seed, width, [width]);
  return Float32Array.from({ length }, (_, i) => row[i % width]);
};

/**
 * Draws every input and upstream from `seed`. `initial: false` leaves the initial states out. Dispose of nothing by hand: call
 * inside `inScope`.
 */
export function drawSample(
  op: MixingOp,
  sizes: Sizes,
  { seed, initial = true, cuSeqlens }: { seed: number; initial?: boolean; cuSeqlens?: Int32Array },
): Sample {
  const N = cuSeqlens ? cuSeqlens.length - 1 : sizes.B;
  const states = op.states(sizes, N);
  const inputs: Tensors = {};
  const upstreams: Tensors = {};
  let next = seed * 100;
  const tensor = (shape: number[], draw: Draw = (s, n) => normal(s, n)) =>
    tf.tensor(draw(next++, tf.util.sizeFromShape(shape), shape), shape, 'float32');
  for (const [name, shape] of Object.entries(op.tokens(sizes))) inputs[name] = tensor(shape, op.draw?.[name]);
  for (const [name, shape] of Object.entries(op.shared?.(sizes) ?? {})) inputs[name] = tensor(shape, op.draw?.[name]);
  if (initial) for (const [name, { shape }] of Object.entries(states)) inputs[name] = tensor(shape, op.draw?.[name]);
  for (const [name, shape] of Object.entries(op.outputs(sizes))) upstreams[name] = tensor(shape);
  for (const { shape, final } of Object.values(states)) upstreams[final] = tensor(shape);
  return { op, sizes, cuSeqlens, inputs, upstreams };
}

/** Runs `body` and disposes of every tensor it made, also when an expectation fails. */
export function inScope(body: () => void): void {
  tf.engine().startScope();
  try {
    body();
  } finally {
    tf.engine().endScope();
  }
}

/** Another way to compute the op on a sample's inputs, e.g. `cutAt(...)`. */
export type Composition = (inputs: Tensors) => Tensors;

/** Outputs, final states and all gradients of `compose` (default: the op with `options`) equal the oracle's. */
export function expectOracle(
  sample: Sample,
  options: OpOptions,
  tolerance: number,
  compose: Composition = (inputs) => sample.op.run(inputs, { ...options, cuSeqlens: sample.cuSeqlens }),
): void {
  const { op, sizes, inputs, upstreams, cuSeqlens } = sample;
  const want = op.oracle(plain(inputs), sizes, { cuSeqlens }, plain(upstreams));
  const names = Object.keys(upstreams);
  const run = (x: Tensors) => pick(compose(x), names);
  const { outputs, grads } = outputsAndGrads(
    run,
    inputs,
    names.map((n) => upstreams[n]),
  );
  const terms = (name: string) => Math.max(1, want[`terms.${name}`]?.[0] ?? 1);
  for (const [i, name] of names.entries()) expectClose(name, outputs[i], want[name], tolerance, terms(name));
  for (const input of Object.keys(inputs)) {
    const name = gradName(input);
    expectClose(name, grads[input], want[name], tolerance, terms(name));
  }
}

/** The op over the pieces between `cuts` (token indices), each starting from the state the one before left. */
export function cutAt({ op, sizes }: Sample, cuts: number[], options: OpOptions): Composition {
  const ends = [...new Set([...cuts.filter((t) => t > 0 && t < sizes.T), sizes.T])].sort((a, b) => a - b);
  const states = op.states(sizes, sizes.B);
  return (inputs) => {
    const pieces: Tensors[] = [];
    let carried: Tensors = Object.fromEntries(Object.entries(inputs).filter(([name]) => name in states));
    ends.forEach((end, n) => {
      const start = ends[n - 1] ?? 0;
      const tokens: Tensors = {};
      for (const name of Object.keys(op.tokens(sizes))) tokens[name] = timeSlice(inputs[name], start, end);
      const shared = Object.keys(op.shared?.(sizes) ?? {}).map((name) => [name, inputs[name]]);
      pieces.push(op.run({ ...tokens, ...Object.fromEntries(shared), ...carried }, options));
      carried = Object.fromEntries(Object.entries(states).map(([name, { final }]) => [name, pieces[n][final]]));
    });
    const joined: Tensors = { ...pieces[pieces.length - 1] };
    for (const name of Object.keys(op.outputs(sizes)))
      joined[name] = tf.concat(
        pieces.map((p) => p[name]),
        1,
      );
    return joined;
  };
}

/**
 * Nothing before token t depends on token t or later, to the last bit: outputs before t stay when every input from t on is
 * replaced, and an upstream that is zero from t on leaves exactly zero gradient there.
 */
export function expectCausal(sample: Sample, t: number, options: OpOptions): void {
  const { op, sizes, inputs, upstreams } = sample;
  const tokens = Object.keys(op.tokens(sizes));
  const other = drawSample(op, sizes, { seed: 987654 }).inputs;
  const changed = { ...inputs };
  for (const name of tokens) changed[name] = spliceTime(inputs[name], other[name], t);
  const [before, after] = [op.run(inputs, options), op.run(changed, options)];
  for (const name of Object.keys(op.outputs(sizes))) {
    const [a, b] = [before[name], after[name]].map((x) => values(timeSlice(x, 0, t)));
    expect(Array.from(a), `${name} before token ${t}`).toEqual(Array.from(b));
  }
  const names = Object.keys(op.outputs(sizes));
  const past = names.map((n) => spliceTime(upstreams[n], tf.zerosLike(upstreams[n]), t));
  const { grads } = outputsAndGrads((x: Tensors) => pick(op.run(x, options), names), inputs, past);
  for (const name of tokens) {
    const future = values(timeSlice(grads[name], t, sizes.T));
    const largest = Array.from(future).reduce((m, x) => Math.max(m, Math.abs(x)), 0);
    expect(largest, `${gradName(name)} from token ${t} on`).toBe(0);
  }
}

/** A call, and a gradient taken in a tidy, leave no tensor but their results. */
export function expectNoLeak({ op, inputs, cuSeqlens }: Sample, options: OpOptions): void {
  const all = { ...options, cuSeqlens };
  const before = tf.memory();
  const results = op.run(inputs, all);
  const kinds = Object.values(results);
  expect(tf.memory().numTensors - before.numTensors, 'tensors after a call').toBe(kinds.length);
  tf.dispose(kinds);
  const names = Object.keys(inputs);
  const objective = (...xs: tf.Tensor[]) => {
    const outs = op.run(Object.fromEntries(names.map((n, i) => [n, xs[i]])), all);
    return tf.addN(Object.values(outs).map((x) => tf.sum(x))) as tf.Scalar;
  };
  tf.tidy(() => void tf.grads(objective)(names.map((n) => inputs[n])));
  expect(tf.memory().numTensors, 'tensors after a gradient').toBe(before.numTensors);
  expect(tf.memory().numBytes, 'bytes after a gradient').toBe(before.numBytes);
}

/** `q` -> `dq`, `initialState` -> `dInitialState`. */
export function gradName(input: string): string {
  return input.length === 1 ? `d${input}` : `d${input[0].toUpperCase()}${input.slice(1)}`;
}

function plain(tensors: Tensors): Arrays {
  return Object.fromEntries(Object.entries(tensors).map(([name, x]) => [name, values(x)]));
}

function pick(tensors: Tensors, names: string[]): tf.Tensor[] {
  return names.map((name) => tensors[name]);
}

/** Tokens start .. end - 1 of [B, T, ...]. */
export function timeSlice(x: tf.Tensor, start: number, end: number): tf.Tensor {
  const begin = x.shape.map((_, axis) => (axis === 1 ? start : 0));
  return tf.slice(
    x,
    begin,
    x.shape.map((n, axis) => (axis === 1 ? end - start : n)),
  );
}

/** `a` before token t, `b` from it on. */
export function spliceTime(a: tf.Tensor, b: tf.Tensor, t: number): tf.Tensor {
  const T = a.shape[1] as number;
  return tf.concat([timeSlice(a, 0, t), timeSlice(b, t, T)], 1);
}
