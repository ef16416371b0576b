import { readFile } from 'node:fs/promises';
import { type BackendName, useBackend } from '../backend/useBackend.js';
import { checkPositiveInt } from '../chunked/check.js';
import { type CausalLM, isLongPrompt, Session } from '../models/index.js';
import { PrefillPool } from '../prefill/index.js';
import { replaceFile } from '../train/checkpoint/files.js';
import { createModel, openModel, tokenizerOf } from '../train/openModel.js';
import { formatBytes } from '../train/progress.js';
import { streamText } from '../train/sample.js';
import { interruptible } from './interruptible.js';

interface Options {
  prompt?: string;
  promptFile?: string;
  maxTokens: number;
  temperature: number;
  topK?: number;
  topP?: number;
  repetitionPenalty: number;
  seed: number;
  stop?: string[];
  loadSession?: string;
  saveSession?: string;
  workers: number;
  backend: BackendName;
}

/** `seqmix generate`: the text on stdout as it comes, a line of figures on stderr. */
export async function runGenerate(reference: string, options: Options): Promise<number> {
  const { prompt: _, promptFile: _f, stop, loadSession, saveSession, workers, backend, ...sampling } = options;
  checkPositiveInt('generate', 'workers', workers);
  const prompt = await promptOf(options);
  const opened = await openModel(reference);
  const tokenizer = tokenizerOf(opened);
  await useBackend(backend);
  const model = createModel(opened);
  const session = await openSession(loadSession, model);
  const promptTokens = tokenizer.encode(prompt).length + session.unread.length;
  const prefill =
    workers > 1 && isLongPrompt(promptTokens) ? await PrefillPool.start(model, { workers, promptTokens }) : undefined;
  const start = performance.now();
  let [count, reading] = [0, 0];
  process.stdout.write(prompt);
  const status = await interruptible('', async (signal) => {
    const onToken = () => {
      if (count++ === 0) reading = performance.now() - start;
    };
    const given = { ...sampling, session, prefill, stopTexts: stop, signal, onToken };
    for await (const piece of streamText(model, tokenizer, prompt, given)) process.stdout.write(piece);
  }).finally(() => prefill?.close());
  process.stdout.write('\n');
  const perSecond = Math.max(count - 1, 0) / ((performance.now() - start - reading) / 1e3);
  if (saveSession) await replaceFile(saveSession, await session.toBytes());
  console.error(
    `[${count} tokens, the first after ${(reading / 1e3).toFixed(2)} s, the others ${perSecond.toFixed(0)} per second; state ${formatBytes(model.stateBytes(1, session.position))} after ${session.position} tokens${saveSession ? `, saved to ${saveSession}` : ''}; ${opened.path}]`,
  );
  session.dispose();
  model.dispose();
  return status;
}

async function promptOf({ prompt, promptFile, loadSession }: Options): Promise<string> {
  if (promptFile === undefined) return prompt ?? (loadSession ? '' : 'The ');
  return readFile(promptFile, 'utf8').catch((error: NodeJS.ErrnoException) => {
    throw new Error(`generate: cannot read the prompt: ${error.message}`);
  });
}

async function openSession(file: string | undefined, model: CausalLM): Promise<Session> {
  if (file === undefined) return new Session(model);
  const bytes = await readFile(file).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error;
    throw new Error(`generate: expected a session saved with --save-session at ${file}, found no file`);
  });
  return Session.fromBytes(bytes, model);
}
