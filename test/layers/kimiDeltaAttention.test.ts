import { describe, expect, test } from 'vitest';
import { KimiDeltaAttention, type KimiDeltaAttentionOptions } from '../../src/layers/index.js';
import { describeLayer } from '../support/layerProperties.js';

const cases: Partial<KimiDeltaAttentionOptions>[] = [
  {},
  { numVHeads: 4, expandV: 0.5, convBias: true, convSize: 3, gateBias: false },
  { useShortConv: false, allowNegEigval: true, lowerBound: -5, safeGate: true, form: 'recurrent' },
];
for (const options of cases)
  describeLayer({
    title: `KimiDeltaAttention ${JSON.stringify(options)}`,
    make: (extra) => new KimiDeltaAttention({ hiddenSize: 16, numHeads: 2, headDim: 6, ...options, ...extra }),
  });

describe('how it starts', () => {
  const start = (options: Partial<KimiDeltaAttentionOptions>) => {
    const layer = new KimiDeltaAttention({ hiddenSize: 8, numHeads: 64, headDim: 16, name: 'start', ...options });
    const [rates, steps] = ['A_log', 'dt_bias'].map((name) => layer.weightsByName().get(name)?.dataSync() ?? []);
    layer.dispose();
    return { rates: Array.from(rates, Math.exp), steps: Array.from(steps, (x) => Math.log1p(Math.exp(x))) };
  };
  test('rates are uniform in [1, 16], steps log-uniform in [0.001, 0.1]', () => {
    const { rates, steps } = start({});
    expect(Math.min(...rates)).toBeGreaterThanOrEqual(1);
    expect(Math.max(...rates)).toBeLessThanOrEqual(16.0001);
    expect(mean(rates)).toBeCloseTo(8.5, -0.5);
    expect(Math.min(...steps)).toBeGreaterThan(0.000999);
    expect(Math.max(...steps)).toBeLessThan(0.1001);
    expect(mean(steps.map(Math.log))).toBeCloseTo((Math.log(0.001) + Math.log(0.1)) / 2, 0);
  });
  test('a safe gate starts with rate 1', () => {
    expect(start({ safeGate: true, lowerBound: -5 }).rates).toEqual(Array(64).fill(1));
  });
});

const mean = (xs: number[]) => xs.reduce((sum, x) => sum + x, 0) / xs.length;

describe('errors name the layer, what was expected and what came', () => {
  test.each<[object, string]>([
    [{ hiddenSize: undefined }, 'hiddenSize must be a positive integer, got undefined'],
    [{ numHead: 2 }, 'unknown option "numHead"; the options are hiddenSize, numHeads, numVHeads,'],
    [{ numVHeads: 3 }, 'numVHeads must be a multiple of numHeads, got 3 and 2'],
    [{ numVHeads: -1 }, 'numVHeads must be a positive integer, got -1'],
    [{ headDim: 0 }, 'headDim must be a positive integer, got 0'],
    [{ headDim: 3, expandV: 0.5 }, 'headDim * expandV must be a positive integer, got 3 * 0.5'],
    [{ lowerBound: -6 }, 'lowerBound must be in [-5, 0), or null, got -6'],
    [{ lowerBound: 0 }, 'lowerBound must be in [-5, 0), or null, got 0'],
    [{ safeGate: true }, 'safeGate needs a lowerBound (-5 is usual), got none'],
    [{ chunkSize: 0.5 }, 'chunkSize must be a positive integer, got 0.5'],
    [{ form: 'parallel' }, "form must be one of 'auto', 'chunk', 'recurrent', got 'parallel'"],
    [{ normEps: 0 }, 'normEps must be positive, got 0'],
  ])('%j', (options, message) => {
    const make = () => new KimiDeltaAttention({ hiddenSize: 8, numHeads: 2, ...options });
    expect(make).toThrow(`KimiDeltaAttention: ${message}`);
    expect(make).toThrow(RangeError);
  });
});
