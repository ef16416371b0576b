/** The built package in a browser: bundled, served and run in a headless Chromium, on wasm and on webgpu. */
import { isBuiltin } from 'node:module';
import * as tf from '@tensorflow/tfjs';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type GoldenEntry, goldenEntries, readGolden } from '../support/golden.js';
import { expectClose } from '../support/tensors.js';
import { browserRequired, chromiumPath, launchChromium, REMEDY } from './chromium.js';
import type * as layersPage from './layersPage.js';
import * as scenarios from './scenarios.js';
import { type Bundle, bundle, serve } from './site.js';

type Scenarios = typeof scenarios;
type LayersPage = typeof layersPage;
type Backend = (typeof backends)[number];

const backends = ['wasm', 'webgpu'] as const;

const OPS = ['gla', 'simple_gla', 'delta_rule', 'gated_delta_rule', 'kda', 'dplr'];
/** Not those with the names of Kimi Linear's checkpoints, which an adapter maps. */
const publishedKda = goldenEntries('kda_layer').filter(({ config }) => !config.naming.startsWith('kimi'));

let bundles: { page: Bundle; layers: Bundle };
beforeAll(async () => {
  bundles = { page: await bundle('page.ts'), layers: await bundle('layersPage.ts') };
});

test.each(['page', 'layers'] as const)('the bundle of the %s reaches for no module of Node', (name) => {
  const { inputs, outputs } = bundles[name].metafile;
  const imports = [...Object.values(inputs), ...Object.values(outputs)].flatMap((file) => file.imports);
  expect(imports.filter(({ path, external }) => external || isBuiltin(path))).toEqual([]);
  expect(Object.keys(inputs).some((path) => path.startsWith('dist/'))).toBe(true);
});

test('the bundle leaves out the languages of zod, which are more than the whole of this package', () => {
  const parts = Object.values(bundles.page.metafile.outputs).flatMap(({ inputs }) => Object.entries(inputs));
  const locales = parts.filter(([path, { bytesInOutput }]) => path.includes('/zod/v4/locales/') && bytesInOutput > 0);
  expect(locales.map(([path]) => path.split('/').at(-1))).toEqual(['en.js']);
});

test('a Chromium is there where it must be', () => {
  if (!chromiumPath) console.warn(`\n*** The browser tests did not run: ${REMEDY} ***\n`);
  if (browserRequired) expect(chromiumPath, REMEDY).toBeDefined();
});

describe.skipIf(!chromiumPath)('Chromium', () => {
  let browser: Browser;
  let site: Awaited<ReturnType<typeof serve>>;
  beforeAll(async () => {
    await scenarios.start('wasm');
    const model = await scenarios.modelFiles();
    site = await serve({
      ...{ 'page.js': bundles.page.code, 'layers.js': bundles.layers.code },
      ...{ 'model/config.json': model['config.json'], 'model/model.safetensors': model['model.safetensors'] },
    });
    browser = await launchChromium();
  });
  afterAll(async () => {
    await browser?.close();
    site?.close();
  });

  /**
   * A page with a script; `call` runs one of its functions there. What the page throws or logs as an error fails the call, unless it is
   * `allowed`.
   */
  async function open<P extends object>(
    script: string,
    { path = '/', allowed }: { path?: string; allowed?: RegExp } = {},
  ) {
    const page: Page = await browser.newPage();
    const errors: string[] = [];
    page.on('pageerror', (error) => errors.push(error.message));
    page.on('console', (message) => message.type() === 'error' && errors.push(message.text()));
    await page.goto(site.url + path);
    await page.addScriptTag({ url: `${site.url}/${script}` });
    return async <K extends keyof P & string>(name: K, ...args: ArgumentsOf<P[K]>): Promise<ResultOf<P[K]>> => {
      const result = await page.evaluate(
        ([name, args]) => (globalThis as unknown as { page: Functions }).page[name as string](...(args as unknown[])),
        [name, args] as const,
      );
      expect(errors.filter((message) => !allowed?.test(message))).toEqual([]);
      return result as ResultOf<P[K]>;
    };
  }

  test('without the .wasm files, useBackend says what to do', async () => {
    const call = await open<Scenarios>('page.js', { allowed: /404|wasm|Abort/i });
    const message = await call('startError', 'wasm', '/nowhere/');
    expect(message).toMatch(/the wasm backend did not start.*setWasmPaths/);
  });

  test('where a page may use threads, the wasm backend is started without them, as our kernels need it', async () => {
    const call = await open<Scenarios>('page.js', { path: '/isolated' });
    expect(await call('start', 'wasm', '/wasm/')).toBe('wasm');
    expect(await call('streamTokens', 20, 5)).toEqual(await scenarios.streamTokens(20, 5));
    expect((await call('report')).threads).toBe(1);
  });

  test('where it already runs with threads, useBackend says what to do', async () => {
    const call = await open<Scenarios>('page.js', { path: '/isolated' });
    expect(await call('startStock', '/wasm/')).toBe('wasm');
    expect(await call('startError', 'wasm')).toMatch(/already runs with threads.*before anything else starts it/);
  });

  describe.each(backends)('%s', (backend) => {
    let call: Awaited<ReturnType<typeof open<Scenarios>>>;
    beforeAll(async () => {
      call = await open<Scenarios>('page.js');
      expect(await call('start', backend, '/wasm/')).toBe(backend);
      if (backend === 'webgpu') await call('strictGpu');
    });

    test.each(opRuns[backend])('$file, form $form: outputs, final state and gradients', async ({ file, form }) => {
      const { op, config, tolerances } = entryOf(file);
      const golden = readGolden(file);
      const got = await call('goldenOp', op as scenarios.OpName, config, await plain(golden), form);
      expectGolden(got, golden, tolerances);
    });

    test.each(layerRuns[backend])('the layer on %s: outputs, final state and gradients', async (file) => {
      const { op, config, tolerances } = entryOf(file);
      const golden = readGolden(file);
      const got = await call('goldenLayer', op as 'gla_layer' | 'kda_layer', config, await plain(golden));
      expectGolden(got, golden, tolerances);
    });

    test('a language model learns as in Node', async () => {
      const steps = backend === 'wasm' ? 8 : 2;
      const want = await scenarios.train(steps);
      const got = await call('train', steps);
      expectClose('loss', losses(got), losses(want), 1e-5);
      expectClose(
        'gradient norm',
        got.map(({ gradNorm }) => gradNorm),
        want.map(({ gradNorm }) => gradNorm),
        1e-4,
      );
      expect(got[steps - 1].loss).toBeLessThan(got[0].loss);
    });

    test('generate streams the tokens that Node gives for the same seed', async () => {
      const length = backend === 'wasm' ? 20 : 4;
      const tokens = await call('streamTokens', length, 5);
      expect(tokens).toHaveLength(length);
      expect(tokens).toEqual(await scenarios.streamTokens(length, 5));
    });

    test.runIf(backend === 'wasm')(
      'a layer in tf.model: fit learns, and a page of its own loads the model',
      async () => {
        const { losses, input, output, topology, weights } = await call('fit', 4);
        expect(losses[3]).toBeLessThan(losses[0]);
        const predict = await open<LayersPage>('layers.js');
        expectClose('prediction', await predict('predict', topology, weights, input), output.data, 1e-5);
      },
    );

    test('doctor reports what is there', async () => {
      const report = await call('report');
      expect(report).toMatchObject({ backend, node: null, simd: true });
      expect(report.platform).toContain('Chrome');
      expect(report.fixes.filter(({ installed }) => !installed)).toEqual([]);
      expect(report.kernels).toEqual(
        backend === 'wasm' ? expect.objectContaining({ build: expect.any(String) }) : null,
      );
      expect(report.optionalBackends.webgpu.available).toBe(true);
    });

    test.runIf(backend === 'webgpu')('data cannot be read at the call, so a wrong id shows as NaN', async () => {
      expect(await call('syncReadError')).toContain('OffscreenCanvas');
      expect(await call('embedOutside')).toEqual([1, 1, Number.NaN, Number.NaN]);
    });
  });
});

/** On wasm everything, fused. WebGPU without a GPU is slow (it compiles a shader for each kind of op), so there a choice. */
const opRuns: Record<Backend, { file: string; form: scenarios.Form }[]> = {
  wasm: goldenEntries(...OPS).map(({ file }) => ({ file, form: 'auto' })),
  webgpu: [
    { file: 'gla_5.safetensors', form: 'chunk' }, // strong decays, two chunks
    { file: 'simple_gla_3.safetensors', form: 'chunk' },
    { file: 'gla_2.safetensors', form: 'recurrent' },
    { file: 'gla_1.safetensors', form: 'parallel' },
    { file: 'kda_5.safetensors', form: 'chunk' },
    { file: 'gated_delta_rule_1.safetensors', form: 'recurrent' },
    { file: 'dplr_1.safetensors', form: 'chunk' },
  ],
};
const layerRuns: Record<Backend, string[]> = {
  wasm: [...goldenEntries('gla_layer'), ...publishedKda].map(({ file }) => file),
  webgpu: ['gla_layer_2.safetensors', 'kda_layer_2.safetensors'], // shared heads and short convolutions
};

function entryOf(name: string): GoldenEntry {
  const entry = goldenEntries(...OPS, 'gla_layer', 'kda_layer').find(({ file }) => file === name);
  if (!entry) throw new Error(`no golden file ${name}`);
  return entry;
}

type Functions = Record<string, (...args: unknown[]) => unknown>;
type ArgumentsOf<F> = F extends (...args: infer A) => unknown ? A : never;
type ResultOf<F> = F extends (...args: never[]) => infer R ? Awaited<R> : never;

const losses = (steps: { loss: number }[]) => steps.map(({ loss }) => loss);

async function plain(golden: Record<string, tf.Tensor>): Promise<scenarios.PlainTensors> {
  const entries = Object.entries(golden).map(async ([name, x]) => [name, await scenarios.plainTensor(x)] as const);
  return Object.fromEntries(await Promise.all(entries));
}

function expectGolden(
  got: scenarios.PlainTensors,
  golden: Record<string, tf.Tensor>,
  tolerances: Record<string, { max_abs: number; max_ref: number }>,
): void {
  expect(Object.keys(got).sort()).toEqual(Object.keys(tolerances).sort());
  for (const [name, { max_abs, max_ref }] of Object.entries(tolerances)) {
    const { shape, data } = got[name];
    expectClose(name, tf.tensor(data, shape), golden[name], max_abs / Math.max(1, max_ref));
  }
}
