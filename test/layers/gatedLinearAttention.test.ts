import { describe, expect, test } from 'vitest';
import { GatedLinearAttention, type GatedLinearAttentionOptions } from '../../src/layers/index.js';
import { describeLayer } from '../support/layerProperties.js';

const cases: Partial<GatedLinearAttentionOptions>[] = [
  {},
  { numHeads: 4, numKvHeads: 2, useShortConv: true },
  { useShortConv: true, convBias: true, convSize: 3, expandK: 1, expandV: 0.5, numKvHeads: 1 },
  { gateFn: 'sigmoid', featureMap: 'relu', gateLowRankDim: 3, chunkSize: 4 },
  { useOutputGate: false, elementwiseAffine: false, gateLogitNormalizer: 1, clampMin: -0.7, form: 'recurrent' },
];
for (const options of cases)
  describeLayer({
    title: `GatedLinearAttention ${JSON.stringify(options)}`,
    make: (extra) => new GatedLinearAttention({ hiddenSize: 16, numHeads: 2, ...options, ...extra }),
    kinks: options.featureMap === 'relu' || options.clampMin !== undefined,
  });

describe('errors name the layer, what was expected and what came', () => {
  test.each<[object, string]>([
    [{ hiddenSize: undefined }, 'hiddenSize must be a positive integer, got undefined'],
    [{ numHead: 2 }, 'unknown option "numHead"; the options are hiddenSize, expandK, expandV, numHeads,'],
    [{ numHeads: 3 }, 'numHeads must divide trunc(hiddenSize * expandK), got 3 and 4'],
    [{ numHeads: 0 }, 'numHeads must be a positive integer, got 0'],
    [{ expandV: 0.4 }, 'numHeads must divide trunc(hiddenSize * expandV), got 4 and 3'],
    [{ numKvHeads: 3 }, 'numKvHeads must divide numHeads, got 3 and 4'],
    [{ numKvHeads: -1 }, 'numKvHeads must be a positive integer, got -1'],
    [{ chunkSize: 0.5 }, 'chunkSize must be a positive integer, got 0.5'],
    [{ featureMap: 'elu' }, "featureMap must be one of 'relu', got 'elu'"],
    [{ gateFn: 'relu' }, "gateFn must be one of 'swish', 'sigmoid', got 'relu'"],
    [{ form: 'fast' }, "form must be one of 'auto', 'chunk', 'recurrent', 'parallel', got 'fast'"],
    [{ normEps: 0 }, 'normEps must be positive, got 0'],
    [{ gateLogitNormalizer: 0 }, 'gateLogitNormalizer must be positive, got 0'],
    [{ clampMin: 1 }, 'clampMin bounds a log decay: it must be <= 0, got 1'],
  ])('%j', (options, message) => {
    const make = () => new GatedLinearAttention({ hiddenSize: 8, ...options });
    expect(make).toThrow(`GatedLinearAttention: ${message}`);
    expect(make).toThrow(RangeError);
  });
});
