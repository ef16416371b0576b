/** Published MatMul-free models: the released configs and their exact figures, config both ways, folders in the published layout. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { describe, expect, test } from 'vitest';
import { loadModelConfig } from '../../src/config/load.js';
import { ConfigError } from '../../src/config/problems.js';
import {
  CausalLM,
  configFromHgrnBit,
  configToHgrnBit,
  describe as describeModel,
  formatDescription,
  isHgrnBitConfig,
  type ModelConfigInput,
  type NamedArrays,
  resolveModelConfig,
  WeightsError,
} from '../../src/models/index.js';
import { Rng } from '../../src/rng.js';
import { type TensorToWrite, writeSafetensors } from '../../src/train/index.js';
import { createModel, openModel } from '../../src/train/openModel.js';
import { goldenEntries, readGolden } from '../support/golden.js';
import { inScope } from '../support/opProperties.js';
import { values } from '../support/tensors.js';
import { arrays, idTensor, smallConfigs, tokenIds } from './support.js';

/** The released config.json of 370M; the other sizes differ in width and depth. */
const released = {
  ...{ architectures: ['HGRNBitForCausalLM'], model_type: 'hgrn_bit', attn_mode: 'fused_recurrent', bos_token_id: 1 },
  ...{ conv_size: 4, eos_token_id: 2, expand_ratio: 1, fuse_cross_entropy: true, hidden_act: 'swish', hidden_ratio: 4 },
  ...{ hidden_size: 1024, initializer_range: 0.02, intermediate_size: null, max_position_embeddings: 2048 },
  ...{ num_heads: 1, num_hidden_layers: 24, rms_norm_eps: 1e-6, share_conv_kernel: true, tie_word_embeddings: false },
  ...{ use_cache: true, use_lower_bound: true, use_short_conv: false, vocab_size: 32000 },
};

describe.each([
  {
    name: '370m',
    size: {},
    parameters: { total: 374_108_160, ternary: 341_049_344, embeddings: 32_768_000, bounds: 24_576, norms: 266_240 },
    megabytes: { float32: 1496.4, float16: 748.2, '2bit': 151.4, base3: 134.3 },
  },
  {
    name: '1.3b',
    size: { hidden_size: 2048 },
    parameters: {
      total: 1_364_779_008,
      ternary: 1_298_661_376,
      embeddings: 65_536_000,
      bounds: 49_152,
      norms: 532_480,
    },
    megabytes: { float32: 5459.1, float16: 2729.6, '2bit': 456.9, base3: 392.0 },
  },
  {
    name: '2.7b',
    size: { hidden_size: 2560, num_hidden_layers: 32 },
    parameters: {
      total: 2_702_357_504,
      ternary: 2_619_473_920,
      embeddings: 81_920_000,
      bounds: 81_920,
      norms: 881_664,
    },
    megabytes: { float32: 10809.4, float16: 5404.7, '2bit': 820.6, base3: 689.7 },
  },
])('the released model of $name', ({ name, size, parameters, megabytes }) => {
  const config = configFromHgrnBit({ ...released, ...size });
  const description = describeModel(config);

  test('is the one in configs/models', () => {
    expect(loadModelConfig(`configs/models/matmulfree-${name}.json`)).toEqual(config);
  });

  test('has the published parameters, and nothing is allocated', () => {
    const before = tf.memory().numTensors;
    const { parameters: got, ternary, weights } = describeModel(config);
    expect(tf.memory().numTensors).toBe(before);
    const count = (pattern: RegExp) =>
      weights.filter((w) => pattern.test(w.name)).reduce((sum, w) => sum + w.parameters, 0);
    expect({
      ...{ total: got.total, ternary: ternary?.parameters, embeddings: got.embeddings },
      ...{ bounds: count(/lower_bounds/), norms: count(/norm/) },
    }).toEqual(parameters);
    const { total, ...parts } = parameters;
    expect(Object.values(parts).reduce((a, b) => a + b)).toBe(total);
  });

  test('takes the bytes that it must', () => {
    const { bytes, ternary } = description;
    const others = parameters.total - parameters.ternary;
    const inMegabytes = (n: number | undefined) => Number(((n as number) / 1e6).toFixed(1));
    expect({
      float32: inMegabytes(bytes.float32),
      float16: inMegabytes(bytes.float16),
      '2bit': inMegabytes(ternary?.packedModel['2bit'].float16),
      base3: inMegabytes(parameters.ternary / 5 + 2 * others),
    }).toEqual(megabytes);
    const exact = parameters.ternary / 5 + 2 * others;
    const base3 = ternary?.packedModel.base3.float16 as number;
    expect(base3).toBeGreaterThan(exact); // a row takes whole bytes, a matrix a scale
    expect(base3 / exact).toBeLessThan(1.001);
    const scales = 4 * (6 * config.numLayers + 1);
    expect(ternary?.packedModel['2bit']).toEqual({
      float32: parameters.ternary / 4 + scales + 4 * others,
      float16: parameters.ternary / 4 + scales + 2 * others,
    });
    expect(description.state.constant).toBe(4 * config.numLayers * config.hiddenSize);
    expect(description.state.perToken).toBe(0);
  });
});

test('the table says so', () => {
  const text = formatDescription(describeModel(configFromHgrnBit(released)));
  expect(text).toContain('causal_lm: 374,108,160 parameters; hidden size 1,024, 24 layers, vocabulary 32,000');
  expect(text).toMatch(/^not packed +1,496,432,640 +748,216,320$/m);
  expect(text).toMatch(/^ternary in 2 bits +217,498,180 +151,380,548$/m);
  expect(text).toMatch(/^ternary in base 3 +2\d\d,\d{3},\d{3} +134,\d{3},\d{3}$/m);
});

const small = { ...released, vocab_size: 37, hidden_size: 16, num_hidden_layers: 3, intermediate_size: 24 };

describe('config', () => {
  test('an empty one has the published defaults', () => {
    const config = configFromHgrnBit({ model_type: 'hgrn_bit' });
    expect(config).toEqual(configFromHgrnBit({ ...released, hidden_size: 2048 }));
    expect(config).toMatchObject({
      ...{ hiddenSize: 2048, numLayers: 24, vocabSize: 32000, normEps: 1e-6, tieEmbeddings: false, linear: 'bit' },
      mlp: { type: 'bit_glu', intermediateSize: 5632 },
    });
    expect(config.mixers[23]).toMatchObject({ type: 'mlgru', expandRatio: 1, linear: 'bit', useLowerBound: true });
    expect(config.mixers[23]).toMatchObject({ useShortConv: false, convSize: 4, shareConvKernel: true });
  });

  test('goes there and back', () => {
    const given = {
      ...{ ...small, expand_ratio: 2, use_lower_bound: false, rms_norm_eps: 1e-5, initializer_range: 0.01 },
      ...{ use_short_conv: true, conv_size: 3, share_conv_kernel: false },
    };
    const config = configFromHgrnBit(given);
    const { bos_token_id: _b, eos_token_id: _e, use_cache: _u, fuse_cross_entropy: _f, ...rest } = given;
    const { max_position_embeddings: _m, ...meaningful } = rest;
    expect(configToHgrnBit(config)).toMatchObject(meaningful);
    expect(configFromHgrnBit(configToHgrnBit(config))).toEqual(config);
    expect([configToHgrnBit(config), config].map(isHgrnBitConfig)).toEqual([true, false]);
  });

  test('what is not supported is refused, all at once', () => {
    const wrong = { hidden_act: 'gelu', tie_word_embeddings: true };
    const read = () => configFromHgrnBit({ ...small, ...wrong }, 'some/config.json');
    expect(read).toThrow(ConfigError);
    expect(read).toThrow(/^some\/config\.json: 2 problems/);
    for (const field of Object.keys(wrong)) expect(read).toThrow(new RegExp(`${field}: supported: .*, got `));
    expect(() => configFromHgrnBit({ model_type: 'hgrn' })).toThrow('model_type: supported: "hgrn_bit", got "hgrn"');
  });

  test('what the published class cannot say is refused on writing', () => {
    const write = (config: ModelConfigInput) => () => configToHgrnBit(resolveModelConfig(config));
    const dense = { type: 'mlgru', linear: 'dense' } as const;
    const other = { ...smallConfigs.gla, mixers: ['gla', dense, dense] } as ModelConfigInput;
    expect(write({ ...other, numLayers: 2 })).toThrow('mixers[0].type: must be "mlgru", got "gla"');
    expect(write({ ...other, numLayers: 2 })).toThrow('mlp.type: must be "bit_glu", got nothing');
    expect(write({ ...other, mixers: [dense] })).toThrow('mixers[0].linear: must be "bit", got "dense"');
    expect(write({ ...other, mixers: [dense] })).toThrow('tieEmbeddings: must be false, got true');
    const biased = { type: 'mlgru', useShortConv: true, convBias: true } as const;
    expect(write({ ...other, mixers: [biased] })).toThrow('mixers[0].convBias: must be false, got true');
    expect(write({ ...other, mixers: ['mlgru', dense] })).toThrow('mixers[1]: all layers must have the same options');
    const packed = { ...configFromHgrnBit(small), packed: '2bit' as const };
    expect(() => configToHgrnBit(packed)).toThrow('packed: must be nothing, got "2bit"');
  });
});

/** The tensors of a published file by their names and shapes, d wide, i inside, v tokens, l layers. */
function publishedShapes([v, d, l, i]: number[]): Map<string, number[]> {
  const shapes: Record<string, number[]> = { 'model.embeddings.weight': [v, d], 'model.lower_bounds': [l, d] };
  for (let layer = 0; layer < l; layer++) {
    const at = `model.layers.${layer}`;
    for (const norm of ['attn_norm', 'mlp_norm', 'attn.g_norm']) shapes[`${at}.${norm}.weight`] = [d];
    for (const name of ['i', 'f', 'g', 'o']) {
      shapes[`${at}.attn.${name}_proj.weight`] = [d, d];
      shapes[`${at}.attn.${name}_proj.norm.weight`] = [d];
    }
    shapes[`${at}.mlp.gate_proj.weight`] = [2 * i, d];
    shapes[`${at}.mlp.gate_proj.norm.weight`] = [d];
    shapes[`${at}.mlp.down_proj.weight`] = [d, i];
    shapes[`${at}.mlp.down_proj.norm.weight`] = [i];
  }
  const last = { 'model.norm.weight': [d], 'lm_head.weight': [v, d], 'lm_head.norm.weight': [d] };
  return new Map(Object.entries({ ...shapes, ...last }));
}

/** Opens a folder in the published layout that holds these. */
async function opened(config: object, tensors: NamedArrays, dtype: 'F32' | 'F16') {
  const folder = mkdtempSync(join(tmpdir(), 'mmfree-'));
  const stored = [...tensors].map(([name, tensor]): [string, TensorToWrite] => [name, { ...tensor, dtype }]);
  writeFileSync(join(folder, 'model.safetensors'), writeSafetensors(new Map(stored)));
  writeFileSync(join(folder, 'config.json'), JSON.stringify(config));
  try {
    return await openModel(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

describe('folders in the published layout', () => {
  test('weights in float16, by their published names', async () => {
    const rng = new Rng(3);
    const random = [...publishedShapes([37, 16, 3, 24])].map(([name, shape]) => {
      const size = shape.reduce((a, b) => a * b);
      // whole multiples of 1/64 are float16 numbers
      const data = Float32Array.from(rng.split(name).normalArray(size, 24), (x) => Math.round(x) / 64);
      return [name, { shape, data: name.includes('norm') ? data.map((x) => 1 + x / 4) : data }] as const;
    });
    const model = createModel(await opened(small, new Map(random), 'F16'));
    expect(model.config).toEqual(configFromHgrnBit(small));
    const read = arrays(model);
    expect([...read.keys()].sort()).toEqual(random.map(([name]) => name).sort());
    for (const [name, { data }] of random) expect(Array.from(read.get(name)!.data), name).toEqual(Array.from(data));
    model.dispose();
  });

  test.each(goldenEntries('mmfree_lm').map((entry) => [entry.file, entry] as const))('%s: logits', async (_, entry) => {
    const golden = readGolden(entry.file);
    const names = Object.keys(entry.inputs).filter((name) => name !== 'input_ids');
    const tensors = new Map(
      names.map((name) => [name, { shape: golden[name].shape, data: values(golden[name]) as Float32Array }]),
    );
    const fields = ['hidden_size', 'num_hidden_layers', 'vocab_size', 'intermediate_size', 'rms_norm_eps'];
    const sizes = Object.fromEntries(fields.map((field) => [field, Number(entry.config[field])]));
    const model = createModel(await opened({ ...released, ...sizes }, tensors, 'F32'));
    tf.tidy(() => {
      const { logits } = model.forward(tf.cast(golden.input_ids, 'int32'));
      const want = values(golden.logits);
      const worst = Array.from(values(logits)).reduce((w, x, i) => Math.max(w, Math.abs(x - want[i])), 0);
      expect(logits.shape).toEqual(golden.logits.shape);
      expect(worst).toBeLessThanOrEqual(entry.tolerances.logits.max_abs);
    });
    model.dispose();
    tf.dispose(golden);
  });

  test.each([true, false])('with short convolutions, shared: %s', async (shared) => {
    const config = { ...small, use_short_conv: true, share_conv_kernel: shared };
    const shapes = publishedShapes([37, 16, 3, 24]);
    const names = shared ? ['h'] : ['q', 'f', 'i']; // of q the published class has taps that it does not use
    for (const layer of [0, 1, 2])
      for (const name of names) shapes.set(`model.layers.${layer}.attn.${name}_conv1d.weight`, [16, 1, 4]);
    const rng = new Rng(4);
    const random = [...shapes].map(([name, shape]) => {
      const size = shape.reduce((a, b) => a * b);
      return [name, { shape, data: rng.split(name).normalArray(size, 0.5) }] as const;
    });
    const model = createModel(await opened(config, new Map(random), 'F32'));
    const read = random.filter(([name]) => !name.includes('q_conv1d'));
    expect([...model.weights.keys()].sort()).toEqual(read.map(([name]) => name).sort());
    inScope(() =>
      expect(Array.from(values(model.forward(idTensor(tokenIds(1, 5))).logits)).every(Number.isFinite)).toBe(true),
    );
    model.dispose();
  });

  test('of one layer, whose table of lower bounds nothing reads; with a tensor missing', async () => {
    const config = { ...small, num_hidden_layers: 1 };
    const all = new Map(
      [...publishedShapes([37, 16, 1, 24])].map(([name, shape]) => [
        name,
        { shape, data: new Float32Array(shape.reduce((a, b) => a * b)).fill(0.5) },
      ]),
    );
    const read = await opened(config, all, 'F32');
    const model = createModel(read);
    inScope(() => expect(model.forward(idTensor(tokenIds(1, 5))).logits.shape).toEqual([1, 5, 37]));
    expect(model.weights.has('model.lower_bounds')).toBe(false);
    model.dispose();
    all.delete('lm_head.norm.weight');
    const without = await opened(config, all, 'F32');
    expect(() => new CausalLM(without.config, without)).toThrow(WeightsError);
  });
});
