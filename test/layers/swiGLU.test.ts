import { expect, test } from 'vitest';
import { SwiGLU } from '../../src/layers/index.js';
import { describeLayer } from '../support/layerProperties.js';

describeLayer({ title: 'SwiGLU', make: (extra) => new SwiGLU({ hiddenSize: 6, intermediateSize: 10, ...extra }) });

test('the default width between the projections is that of the published models', () => {
  const width = (hiddenSize: number) => new SwiGLU({ hiddenSize }).weightSpecs()['up_proj.weight'].shape[0];
  expect([1024, 2048, 2560].map(width)).toEqual([2816, 5632, 6912]);
});

test('errors name the layer, what was expected and what came', () => {
  const make = () => new SwiGLU({ hiddenSize: 6, intermediateSize: 1.5 });
  expect(make).toThrow('SwiGLU: intermediateSize must be a positive integer, got 1.5');
});
