/** The properties of `opProperties` as tests, for every form of an op on wasm and cpu. */
import fc from 'fast-check';
import { beforeAll, describe, test } from 'vitest';
import { useBackend } from '../../src/index.js';
import {
  anyDocuments,
  anySizes,
  cutAt,
  drawSample,
  expectCausal,
  expectNoLeak,
  expectOracle,
  inScope,
  type MixingOp,
  type Sizes,
} from './opProperties.js';

export interface MixingProperties<Kind> {
  /** Everything of the op but sizes, seed and chunk size: gates, strengths, grouped heads. */
  kinds: fc.Arbitrary<Kind>;
  op: (kind: Kind) => MixingOp;
  forms: readonly string[];
  tolerance: number;
  /** Upper ends of the sizes, where they are not those of `anySizes`. */
  limits?: Partial<Sizes>;
  /** Ops to check for leaks, by name. */
  leaks: Record<string, MixingOp>;
  /** Runs of every property; default 20 on wasm, 6 on cpu. */
  numRuns?: { wasm: number; cpu: number };
}

export function testMixingOp<Kind>({
  kinds,
  op: opOf,
  forms,
  tolerance,
  limits,
  leaks,
  numRuns: runs = { wasm: 20, cpu: 6 },
}: MixingProperties<Kind>): void {
  const drawn = {
    kind: kinds,
    seed: fc.nat({ max: 1e6 }),
    chunkSize: fc.constantFrom(1, 2, 3, 4, 5, 8, 12, 16, 32, 64),
    initial: fc.boolean(),
  };

  describe.each(['wasm', 'cpu'] as const)('%s', (backend) => {
    beforeAll(() => useBackend(backend));
    const numRuns = runs[backend];

    describe.each(forms)('%s', (form) => {
      test('equals the recurrence in outputs and all gradients', () => {
        fc.assert(
          fc.property(fc.record({ ...drawn, sizes: anySizes(limits) }), ({ kind, sizes, chunkSize, ...x }) =>
            inScope(() => expectOracle(drawSample(opOf(kind), sizes, x), { form, chunkSize }, tolerance)),
          ),
          { numRuns },
        );
      });

      test('cut anywhere and carried over, also through the gradients', () => {
        const cuts = fc.array(fc.nat({ max: 40 }), { minLength: 1, maxLength: 3 });
        fc.assert(
          fc.property(fc.record({ ...drawn, sizes: anySizes(limits), cuts }), ({ kind, sizes, chunkSize, ...x }) =>
            inScope(() => {
              const sample = drawSample(opOf(kind), sizes, x);
              const options = { form, chunkSize };
              expectOracle(sample, options, tolerance, cutAt(sample, x.cuts, options));
            }),
          ),
          { numRuns },
        );
      });

      test('packed documents equal each document alone', () => {
        const packed = { ...drawn, sizes: anySizes({ ...limits, B: 1 }), cuSeqlens: anyDocuments() };
        fc.assert(
          fc.property(fc.record(packed), ({ kind, chunkSize, ...x }) =>
            inScope(() => {
              const sizes = { ...x.sizes, T: x.cuSeqlens[x.cuSeqlens.length - 1] };
              expectOracle(drawSample(opOf(kind), sizes, x), { form, chunkSize }, tolerance);
            }),
          ),
          { numRuns },
        );
      });

      test('is causal to the last bit', () => {
        const at = fc.nat({ max: 39 });
        fc.assert(
          fc.property(fc.record({ ...drawn, sizes: anySizes(limits), at }), ({ kind, sizes, chunkSize, ...x }) =>
            inScope(() => expectCausal(drawSample(opOf(kind), sizes, x), x.at % sizes.T, { form, chunkSize })),
          ),
          { numRuns },
        );
      });

      test.each(Object.keys(leaks))('leaves no tensor behind: %s', (name) => {
        inScope(() => {
          const sizes = { B: 1, T: 37, H: 2, K: 5, V: 3 };
          expectNoLeak(drawSample(leaks[name], sizes, { seed: 1 }), { form, chunkSize: 16 });
          const cuSeqlens = Int32Array.of(0, 1, 20, 37);
          expectNoLeak(drawSample(leaks[name], sizes, { seed: 2, cuSeqlens }), { form, chunkSize: 16 });
        });
      });
    });
  });
}
