import * as tf from '@tensorflow/tfjs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { useBackend } from '../../src/index.js';
import {
  MultiHeadLatentAttention,
  type MultiHeadLatentAttentionOptions,
  type SeqLayer,
} from '../../src/layers/index.js';
import { Recorder } from '../../src/profile/index.js';
import { attentionOracle } from '../oracle/flashAttention.js';
import { normOracle } from '../oracle/primitives.js';
import { linearOracle } from '../oracle/product.js';
import { type GoldenEntry, goldenEntries, readGolden } from '../support/golden.js';
import { flat, inPieces, layerGrads } from '../support/layerGrads.js';
import { describeLayer } from '../support/layerProperties.js';
import { inScope } from '../support/opProperties.js';
import { expectClose, randomTensors, values } from '../support/tensors.js';

type Options = MultiHeadLatentAttentionOptions;

const small = { hiddenSize: 8, numHeads: 2, kvLoraRank: 6, qkNopeHeadDim: 4, qkRopeHeadDim: 2, vHeadDim: 3 };
const cases: Partial<Options>[] = [
  {},
  { form: 'expanded' },
  { form: 'absorbed' },
  { qLoraRank: 5, ropeBase: 100, qkRopeHeadDim: 4 },
  { qLoraRank: 5, ropeBase: 100, qkRopeHeadDim: 4, form: 'absorbed' },
];
for (const options of cases)
  describeLayer({
    title: `MultiHeadLatentAttention ${JSON.stringify(options)}`,
    make: (extra) => new MultiHeadLatentAttention({ ...small, ...options, ...extra }),
    packedState: false,
  });

describe.each(['wasm', 'cpu'] as const)('stored vectors on %s', (backend) => {
  beforeAll(() => useBackend(backend));
  afterAll(() => useBackend('wasm'));

  describe.each(goldenEntries('kimi_mla'))('$file', (entry) => {
    test.each(['expanded', 'absorbed'] as const)('%s', (form) => inScope(() => replay(entry, form)));
  });
});

function replay({ file, config, outputs, tolerances }: GoldenEntry, form: Options['form']): void {
  const golden = readGolden(file);
  const number = (name: string) => Number(config[name]);
  const layer = new MultiHeadLatentAttention({
    ...{ hiddenSize: number('hidden_size'), numHeads: number('num_heads'), kvLoraRank: number('kv_lora_rank'), form },
    ...{ qkNopeHeadDim: number('qk_nope_head_dim'), qkRopeHeadDim: number('qk_rope_head_dim') },
    vHeadDim: number('v_head_dim'),
  });
  layer.buildWith((name) => values(golden[config.key_prefix + name]) as Float32Array);
  const upstream = (name: string) => (name === 'y' ? golden.dy : undefined);
  const { outputs: got, grads } = layerGrads(layer, golden.x, { upstream });
  const named: Record<string, tf.Tensor> = { y: got.y, cache_entries: got['state.latent'], dx: grads.x };
  for (const [name, gradient] of Object.entries(grads)) named[`grad.${config.key_prefix}${name}`] = gradient;
  for (const name of Object.keys(outputs)) {
    const { max_abs, max_ref } = tolerances[name];
    expectClose(name, named[name], golden[name], max_abs / Math.max(1, max_ref));
  }
  layer.dispose();
}

/** Channels from, ... of rows of `width`, cut out of rows of `of`. */
function columns(x: ArrayLike<number>, of: number, from: number, width: number): Float64Array {
  const rows = x.length / of;
  return Float64Array.from({ length: rows * width }, (_, i) => x[Math.floor(i / width) * of + from + (i % width)]);
}

/** Rows of several arrays side by side. */
function beside(parts: [ArrayLike<number>, number][]): Float64Array {
  const rows = parts[0][0].length / parts[0][1];
  return Float64Array.from(
    Array.from({ length: rows }, (_, r) =>
      parts.flatMap(([x, width]) => Array.from({ length: width }, (_, i) => x[r * width + i])),
    ).flat(),
  );
}

/** Channels 2i and 2i + 1 of every head are a complex number, turned by position * base^(-2i / D): the checkpoints' convention. */
function rotatePairs(x: Float64Array, D: number, H: number, base: number): Float64Array {
  return x.map((a, i) => {
    const channel = i % D;
    const angle = Math.floor(i / (H * D)) * base ** ((-2 * (channel >> 1)) / D);
    return channel % 2
      ? a * Math.cos(angle) + x[i - 1] * Math.sin(angle)
      : a * Math.cos(angle) - x[i + 1] * Math.sin(angle);
  });
}

test.each(['expanded', 'absorbed'] as const)(
  '%s: y equals the published equations in float64, with squeezed queries and rotary pairs',
  (form) =>
    inScope(() => {
      const [T, D, H, r, dn, dr, dv, rq, base] = [9, 8, 2, 6, 4, 6, 3, 5, 50];
      const layer = new MultiHeadLatentAttention({
        ...{ hiddenSize: D, numHeads: H, kvLoraRank: r, qkNopeHeadDim: dn, qkRopeHeadDim: dr, vHeadDim: dv, form },
        ...{ qLoraRank: rq, ropeBase: base },
      });
      layer.buildWith(norms(layer));
      const [x] = randomTensors(1, [1, T, D]);
      const weight = (name: string) => values(layer.weightsByName().get(name) as tf.Tensor);
      const project = (name: string, input: ArrayLike<number>, I: number, O: number) =>
        linearOracle({ x: input, weight: weight(`${name}.weight`) }, { N: T, I, O }, new Float64Array(T * O)).y;
      const norm = (name: string, input: Float64Array, width: number) =>
        normOracle(
          { x: input, weight: weight(`${name}.weight`) },
          { D: width, eps: 1e-6, meanFactor: 1 / width },
          new Float64Array(input.length),
        ).y;

      const q = project(
        'q_b_proj',
        norm('q_a_layernorm', project('q_a_proj', values(x), D, rq), rq),
        rq,
        H * (dn + dr),
      );
      const qr = rotatePairs(columns(q, dn + dr, dn, dr), dr, H, base);
      const low = project('kv_a_proj_with_mqa', values(x), D, r + dr);
      const kr = rotatePairs(columns(low, r + dr, r, dr), dr, 1, base);
      const kv = project('kv_b_proj', norm('kv_a_layernorm', columns(low, r + dr, 0, r), r), r, H * (dn + dv));
      const shared = beside(Array.from({ length: H }, () => [kr, dr]));
      const inputs = {
        q: beside([
          [columns(q, dn + dr, 0, dn), dn],
          [qr, dr],
        ]),
        k: beside([
          [columns(kv, dn + dv, 0, dn), dn],
          [shared, dr],
        ]),
        v: columns(kv, dn + dv, dn, dv),
      };
      const { o } = attentionOracle(inputs, { B: 1, T, S: T, H, G: H, K: dn + dr, V: dv }, {});
      expectClose('y', layer.forward(x).y, project('o_proj', o, H * dv, D), 2e-6);
      layer.dispose();
    }),
);

/** Norms that are not all ones, the rest as the layer starts it. */
function norms(layer: SeqLayer) {
  const specs = layer.weightSpecs();
  return (name: string) => {
    const size = specs[name].shape.reduce((a, b) => a * b);
    return Float32Array.from({ length: size }, (_, i) =>
      name.includes('norm') ? 1 + 0.1 * i : Math.sin(7 * i + size),
    );
  };
}

test('a prompt is expanded, a token after it absorbed, and the two agree', () =>
  inScope(() => {
    const sizes = { hiddenSize: 8, numHeads: 2, kvLoraRank: 8, qkNopeHeadDim: 4, qkRopeHeadDim: 2, vHeadDim: 4 };
    const layer = new MultiHeadLatentAttention({ ...sizes, name: 'a' });
    const [x] = randomTensors(2, [2, 21, 8]);
    const batches: number[] = [];
    const counted: typeof layer.forward = (part, state) => {
      const recorder = new Recorder();
      recorder.install();
      recorder.beginStep('');
      const output = layer.forward(part, state);
      recorder.endStep();
      recorder.uninstall();
      batches.push(recorder.spans.filter(({ name }) => name === 'BatchMatMul').length);
      return output;
    };
    const whole = layer.forward(x);
    const first = counted(tf.slice(x, [0, 0, 0], [2, 20, 8]));
    const last = counted(tf.slice(x, [0, 20, 0], [2, 1, 8]), first.state);
    expect(batches, 'products by head').toEqual([0, 2]);
    expectClose('y', tf.concat([first.y, last.y], 1), whole.y, 1e-5);
    expectClose('latent', last.state.latent, whole.state.latent, 1e-5);
    layer.dispose();
  }));

test('the published sizes cache 576 numbers per token', () => {
  const layer = new MultiHeadLatentAttention({ hiddenSize: 2304, numHeads: 32 });
  expect([0, 1, 1000].map((position) => layer.stateSize(1, position))).toEqual([0, 4 * 576, 4000 * 576]);
});

test('an empty cache and pieces of any length give the same state', () =>
  inScope(() => {
    const layer = new MultiHeadLatentAttention({ ...small, ropeBase: 100, name: 'a' });
    const [x] = randomTensors(3, [1, 7, 8]);
    const want = flat(layer.forward(x));
    const got = flat(inPieces(layer, [2, 3])(x, layer.initialState(1)));
    for (const [name, t] of Object.entries(want)) expectClose(name, got[name], t, 1e-5);
    layer.dispose();
  }));

describe('errors name the layer, what was expected and what came', () => {
  test.each<[object, string]>([
    [{ kvLoraRank: 0 }, 'kvLoraRank must be a positive integer, got 0'],
    [{ qLoraRank: 1.5 }, 'qLoraRank must be a positive integer, got 1.5'],
    [{ ropeBase: 1 }, 'ropeBase must be greater than 1, got 1'],
    [
      { ropeBase: 10, qkRopeHeadDim: 3 },
      'qkRopeHeadDim must be even for rotary positions, got 3; give an even one or ropeBase: null',
    ],
    [{ form: 'chunk' }, "form must be one of 'auto', 'expanded', 'absorbed', got 'chunk'"],
  ])('%j', (options, message) => {
    expect(() => new MultiHeadLatentAttention({ ...small, ...options })).toThrow(
      `MultiHeadLatentAttention: ${message}`,
    );
  });

  test('packed documents take no state', () =>
    inScope(() => {
      const layer = new MultiHeadLatentAttention({ ...small, name: 'a' });
      const [x] = randomTensors(3, [1, 5, 8]);
      const call = () => layer.forward(x, layer.initialState(1), { cuSeqlens: Int32Array.of(0, 2, 5) });
      expect(call).toThrow('MultiHeadLatentAttention "a": packed documents take no state');
    }));
});
