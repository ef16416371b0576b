import { readFile } from 'node:fs/promises';
import { type BackendName, useBackend } from '../backend/useBackend.js';
import { type CausalLM, Session } from '../models/index.js';
import { replaceFile } from '../train/checkpoint/files.js';
import { createModel, openModel, tokenizerOf } from '../train/openModel.js';
import { formatBytes } from '../train/progress.js';
import { streamText } from '../train/sample.js';
import { interruptible } from './interruptible.js';

interface Options {
  prompt?: string;
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
  const { prompt = options.loadSession ? '' : 'The ', stop, loadSession, saveSession, backend, ...sampling } = options;
  const opened = await openModel(reference);
  const tokenizer = tokenizerOf(opened);
  await useBackend(backend);
  const model = createModel(opened);
  const session = await openSession(loadSession, model);
  const start = performance.now();
  let count = 0;
  process.stdout.write(prompt);
  const status = await interruptible('', async (signal) => {
    const onToken = () => void count++;
    const stream = streamText(model, tokenizer, prompt, { ...sampling, session, stopTexts: stop, signal, onToken });
    for await (const piece of stream) process.stdout.write(piece);
  });
  process.stdout.write('\n');
  const perSecond = count / ((performance.now() - start) / 1e3);
  if (saveSession) await replaceFile(saveSession, await session.toBytes());
  console.error(
    `[${count} tokens, ${perSecond.toFixed(0)} per second; state ${formatBytes(model.stateBytes(1, session.position))} after ${session.position} tokens${saveSession ? `, saved to ${saveSession}` : ''}; ${opened.path}]`,
  );
  session.dispose();
  model.dispose();
  return status;
}

async function openSession(file: string | undefined, model: CausalLM): Promise<Session> {
  if (file === undefined) return new Session(model);
  const bytes = await readFile(file).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error;
    throw new Error(`generate: expected a session saved with --save-session at ${file}, found no file`);
  });
  return Session.fromBytes(bytes, model);
}
