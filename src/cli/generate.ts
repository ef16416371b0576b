import { readFile, writeFile } from 'node:fs/promises';
import { type BackendName, useBackend } from '../backend/useBackend.js';
import { CausalLM, type GenerateOptions } from '../models/index.js';
import { openModel } from '../train/openModel.js';
import { formatBytes } from '../train/progress.js';
import { streamText } from '../train/sample.js';
import { loadTokenizer } from '../train/tokenizers/index.js';

interface Options {
  prompt: string;
  maxTokens: number;
  temperature: number;
  topK?: number;
  topP?: number;
  repetitionPenalty: number;
  seed: number;
  stop?: string[];
  loadSession?: string;
  saveSession?: string;
  backend: BackendName;
}

/** `seqmix generate`: the text on stdout as it comes, a line of figures on stderr. */
export async function runGenerate(reference: string, options: Options): Promise<number> {
  const opened = await openModel(reference);
  await useBackend(options.backend);
  const model = new CausalLM(opened.config, { seed: 0 });
  model.loadWeights(opened.weights);
  const tokenizer = await loadTokenizer(opened.run?.tokenizer ?? { type: 'bytes' });
  const start = performance.now();
  let count = 0;
  process.stdout.write(options.prompt);
  for await (const piece of streamText(model, tokenizer, options.prompt, options as GenerateOptions)) {
    process.stdout.write(piece);
    count += 1;
  }
  const seconds = (performance.now() - start) / 1e3;
  process.stdout.write('\n');
  console.error(`[${count} tokens, ${(count / seconds).toFixed(0)} per second, state ${formatBytes(model.stateBytes(1, count))}, ${opened.path}]`);
  model.dispose();
  return 0;
}
