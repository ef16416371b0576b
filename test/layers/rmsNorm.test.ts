import { expect, test } from 'vitest';
import { RMSNorm } from '../../src/layers/index.js';
import { describeLayer } from '../support/layerProperties.js';

describeLayer({ title: 'RMSNorm', make: (extra) => new RMSNorm({ hiddenSize: 7, ...extra }) });
describeLayer({
  title: 'RMSNorm without scale, large eps',
  make: (extra) => new RMSNorm({ hiddenSize: 4, elementwiseAffine: false, eps: 0.5, ...extra }),
});

test('errors name the layer, what was expected and what came', () => {
  expect(() => new RMSNorm({ hiddenSize: 4, eps: 0 })).toThrow('RMSNorm: eps must be positive, got 0');
});
