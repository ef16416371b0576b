import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { resolveRunConfig } from '../../src/config/index.js';
import { CausalLM, Session } from '../../src/models/index.js';
import { sampleText, streamText } from '../../src/train/sample.js';
import { ByteTokenizer } from '../../src/train/tokenizers/index.js';
import { temporaryFolder, tinyRun, writeRun } from '../support/run.js';

const folder = temporaryFolder();
writeRun(folder);
const bytes = new ByteTokenizer();
let model: CausalLM;
beforeAll(() => {
  model = new CausalLM(resolveRunConfig(tinyRun(), { folder }).model, { seed: 1 });
});
afterAll(() => model.dispose());

/** A tokenizer of few letters, so that texts repeat: byte b is the letter b mod 3. */
const letters = new (class extends ByteTokenizer {
  override stream() {
    return { push: (id: number) => 'abc'[id % 3], end: () => '' };
  }
})();

test('stop texts: the text before the first that is complete, however it falls into pieces', async () => {
  const whole = await sampleText(model, letters, 'x', { maxTokens: 60, seed: 5 });
  expect(whole).toMatch(/^[abc]{60}$/);
  const stop = fc.array(fc.constantFrom('a', 'b', 'c'), { minLength: 1, maxLength: 5 }).map((s) => s.join(''));
  await fc.assert(
    fc.asyncProperty(fc.array(stop, { maxLength: 4 }), async (stopTexts) => {
      const pieces: string[] = [];
      let drawn = 0;
      const options = { maxTokens: 60, seed: 5, stopTexts, onToken: () => void drawn++ };
      for await (const piece of streamText(model, letters, 'x', options)) pieces.push(piece);
      expect(pieces).not.toContain('');
      const lengths = Array.from({ length: 61 }, (_, n) => n);
      const completed = lengths.find((n) => stopTexts.some((text) => whole.slice(0, n).includes(text)));
      const ends = stopTexts.map((text) => whole.slice(0, completed).indexOf(text)).filter((at) => at >= 0);
      expect(pieces.join('')).toBe(completed === undefined ? whole : whole.slice(0, Math.min(...ends)));
      expect(drawn).toBe(completed ?? 60);
    }),
    { numRuns: 30 },
  );
});

test('an empty prompt has nothing to continue, but for a session that has', async () => {
  await expect(sampleText(model, bytes, '')).rejects.toThrow(/at least one id/);
  const session = new Session(model);
  const first = await sampleText(model, letters, 'x', { maxTokens: 4, seed: 5, session });
  const second = await sampleText(model, letters, '', { maxTokens: 4, seed: 5, session });
  expect(first + second).toBe(await sampleText(model, letters, 'x', { maxTokens: 8, seed: 5 }));
  session.dispose();
});
