import * as tf from '@tensorflow/tfjs';
import { afterAll, describe, expect, test } from 'vitest';
import { AdamW } from '../../src/chunked/index.js';
import { resolveRunConfig } from '../../src/config/index.js';
import { CausalLM } from '../../src/models/index.js';
import { SequenceReader, type TokenStream } from '../../src/train/data/index.js';
import { bitsPerByte, evaluate, gzipBitsPerByte } from '../../src/train/evaluate.js';
import { NonFiniteLossError, trainStep } from '../../src/train/step.js';
import { temporaryFolder, text, tinyRun, writeRun } from '../support/run.js';
import { expectClose } from '../support/tensors.js';

const folder = temporaryFolder();
writeRun(folder);
const { model: config } = resolveRunConfig(tinyRun(), { folder });
const update = { learningRate: 0.01, weightDecay: 0.1, clipNorm: 0 };
const tokens = new TextEncoder().encode(text);
const joined: TokenStream = { tokens, bytesPerToken: 1 };
const packed: TokenStream = { ...joined, starts: Uint32Array.from([0, 5, 6, 40, 300, 333, 1000, 1010, 1020, 1500]) };

describe.each([
  { name: 'rows', stream: joined },
  { name: 'packed documents', stream: packed }, // the halves hold unequal numbers of targets
])('accumulation over $name', ({ stream }) => {
  test('two micro-batches equal one batch of twice the size', async () => {
    const weights = await Promise.all(
      [[4], [2, 2], [1, 3]].map(async (sizes) => {
        const model = new CausalLM(config, { seed: 7 });
        const optimizer = new AdamW();
        const whole = new SequenceReader(stream, { batchSize: 4, seqLen: 16, mode: 'random', seed: 1 }).next();
        const rows = [...rowsOf(whole)];
        let at = 0;
        const batches = sizes.map((size) => joinRows(rows.slice(at, (at += size))));
        if (sizes.length === 1) expect(batches[0]).toEqual(whole);
        const result = await trainStep(model, optimizer, batches, update);
        const values = [...model.weights].map(([name, w]) => [name, Float32Array.from(w.dataSync())] as const);
        model.dispose();
        optimizer.dispose();
        return { values, result };
      }),
    );
    const [one, ...others] = weights;
    for (const { values, result } of others) {
      expect(result.loss).toBeCloseTo(one.result.loss, 6);
      expect(result.gradNorm / one.result.gradNorm).toBeCloseTo(1, 5);
      // Adam divides a gradient by its own size, so where it is nearly zero its rounding shows: lr times a fraction
      for (const [i, [name, got]] of values.entries()) expectClose(name, got, one.values[i][1], 1e-4);
    }
  });
});
