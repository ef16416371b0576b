import { expect, test } from 'vitest';
import { ShortConvolution } from '../../src/layers/index.js';
import { describeLayer } from '../support/layerProperties.js';

describeLayer({ title: 'ShortConvolution', make: (extra) => new ShortConvolution({ hiddenSize: 6, ...extra }) });
describeLayer({
  title: 'ShortConvolution, 3 taps, bias, no activation',
  make: (extra) => new ShortConvolution({ hiddenSize: 5, convSize: 3, convBias: true, activation: null, ...extra }),
});

test('weights have the published names and shapes', () => {
  const { weight, bias } = new ShortConvolution({ hiddenSize: 6, convBias: true }).weightSpecs();
  expect(weight.shape).toEqual([6, 1, 4]);
  expect(bias.shape).toEqual([6]);
});

test('errors name the layer, what was expected and what came', () => {
  const make = (options: object) => () => new ShortConvolution({ hiddenSize: 6, ...options });
  expect(make({ convSize: 0 })).toThrow('ShortConvolution: convSize must be a positive integer, got 0');
  expect(make({ activation: 'relu' })).toThrow("activation must be one of 'silu', got 'relu'");
});
