/** Initial values of S5's weights by their names. */
import type { Rng } from '../rng.js';
import { truncatedNormals } from '../ssm/draws.js';
import { initialS5, interleaved, type ModeBasis } from '../ssm/index.js';
import { modeBasis } from './modeBases.js';
import type { S5Options } from './s5.js';

type StartOptions = Pick<
  S5Options,
  'hiddenSize' | 'stateSize' | 'blocks' | 'conjugate' | 'ptd' | 'bInit' | 'cInit' | 'bidirectional' | 'dtMin' | 'dtMax'
>;

function basisOf({ stateSize, blocks, conjugate, ptd }: StartOptions): ModeBasis {
  return modeBasis({ stateSize, blocks, conjugate, ...(ptd && { ptd }) });
}

/** P. The basis is made only where `ptd` may leave real modes. */
export function modesOf(options: StartOptions): number {
  const { stateSize, conjugate, ptd } = options;
  if (!conjugate) return stateSize;
  return ptd && ptd.method !== 'none' ? basisOf(options).modes : stateSize / 2;
}

/** The start of a weight. Those of the dense layers: kernels LeCun normal, biases zero. */
export function startOf(options: StartOptions, name: string, rng: Rng, size: number): Float32Array {
  if (name.endsWith('.bias')) return new Float32Array(size);
  if (name.endsWith('.kernel')) return Float32Array.from(truncatedNormals(rng, size, 1 / options.hiddenSize));
  const values = initialS5({ ...options, ptd: options.ptd ?? undefined }, rng, basisOf(options));
  const { lambda, b, c, cReverse, d, logStep } = values;
  switch (name) {
    case 'Lambda_re':
      return Float32Array.from(lambda.re);
    case 'Lambda_im':
      return Float32Array.from(lambda.im);
    case 'B':
      return interleaved(b);
    case 'C1':
      return interleaved(c);
    case 'C2':
      return interleaved(cReverse ?? c);
    case 'C':
      return cReverse ? sideBySide(interleaved(c), interleaved(cReverse), options.hiddenSize) : interleaved(c);
    case 'D':
      return Float32Array.from(d);
    default:
      return Float32Array.from(logStep);
  }
}

/** Row by row, those of x and then those of y. */
function sideBySide(x: Float32Array, y: Float32Array, rows: number): Float32Array {
  const width = x.length / rows;
  return Float32Array.from({ length: 2 * x.length }, (_, i) => {
    const [row, column] = [Math.floor(i / (2 * width)), i % (2 * width)];
    return column < width ? x[row * width + column] : y[row * width + column - width];
  });
}
