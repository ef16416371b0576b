import { type BackendName, useBackend } from '../backend/useBackend.js';
import {
  checkTokens,
  corrupted,
  isLabelled,
  isTask,
  loadTrainingData,
  type Part,
  readDocuments,
  type SinusoidNoise,
  tokenizeDocuments,
  type ValidationData,
  validationData,
} from '../train/data/index.js';
import { describeEvaluation, evaluate, gzipBitsPerByte } from '../train/evaluate.js';
import { createModel, createSequenceModel, type OpenedModel, openModel, tokenizerOf } from '../train/openModel.js';
import { labelledFiles } from './labelledFiles.js';

export interface EvalFlags {
  seqLen?: number;
  batchSize: number;
  json: boolean;
  backend: BackendName;
  /** Part of the data of a classifier or regressor; default: the test, else validation. */
  split?: Part;
  noise?: SinusoidNoise & { seed: number };
}

/** `seqmix eval`. */
export async function runEval(reference: string, files: string[], options: EvalFlags): Promise<number> {
  const opened = await openModel(reference);
  if (opened.config.modelType !== 'causal_lm') return evalSequences(opened, files, options);
  if (options.split || options.noise)
    throw new Error('eval: --split and --noise are for classifiers and regressors, got a language model');
  const data = await textToScore(opened, opened.config.vocabSize, files, options);
  await useBackend(options.backend);
  const model = createModel(opened);
  const start = performance.now();
  const evaluation = await evaluate(model, data.batches(), data.bytesPerToken);
  const tokensPerSecond = perSecond(evaluation.tokens, start);
  model.dispose();
  const gzipBpb = data.bytes && gzipBitsPerByte(data.bytes());
  const result = { model: opened.path, step: opened.step, ...evaluation, gzipBpb, tokensPerSecond };
  report(result, options, [
    describeEvaluation(evaluation),
    ...(gzipBpb === undefined ? [] : [`gzip -9 of the same bytes: ${gzipBpb.toFixed(3)} bits/byte`]),
    `${tokensPerSecond.toLocaleString('en')} tokens per second`,
  ]);
  return 0;
}

async function evalSequences(opened: OpenedModel, files: string[], options: EvalFlags): Promise<number> {
  if (options.seqLen !== undefined)
    throw new Error('eval: --seq-len is for language models: sequences with labels have lengths of their own');
  const { part, batches } = await sequencesToScore(opened, files, options);
  await useBackend(options.backend);
  const model = createSequenceModel(opened);
  const start = performance.now();
  const { noise } = options;
  const evaluation = await evaluate(model, noise ? corrupted(batches, noise) : batches, undefined);
  const sequencesPerSecond = perSecond(evaluation.sequences, start);
  model.dispose();
  const result = { model: opened.path, step: opened.step, part, noise, ...evaluation, sequencesPerSecond };
  report(result, options, [
    `${part}: ${describeEvaluation(evaluation)}`,
    ...(noise
      ? [`with noise of ${noise.amplitude} times each sequence, at ${noise.frequencies.join(', ')} radians per step`]
      : []),
    `${sequencesPerSecond.toLocaleString('en')} sequences per second`,
  ]);
  return 0;
}

const perSecond = (count: number | undefined, start: number) =>
  Math.round((count ?? 0) / ((performance.now() - start) / 1e3));

function report(result: { model: string; step?: number }, { json }: EvalFlags, lines: string[]): void {
  if (json) console.log(JSON.stringify(result, null, 2));
  else {
    console.log(`${result.model}${result.step === undefined ? '' : `, step ${result.step}`}`);
    for (const line of lines) console.log(line);
  }
}

/** The sequences of the files, or of the data the model was trained on: those of the test where there is one. */
async function sequencesToScore(
  { run, config }: OpenedModel,
  files: string[],
  { batchSize, split }: EvalFlags,
): Promise<{ part: string; batches: ReturnType<ValidationData['batches']> }> {
  if (config.modelType === 'causal_lm') throw new Error('eval: expected a classifier or regressor');
  if (files.length) {
    if (split) throw new Error('eval: --split is for the data the model was trained on; leave it out, or the files');
    return { part: files.join(' '), batches: (await labelledFiles(files, config, { batchSize })).batches };
  }
  if (!run) throw new Error('eval: the data of this model are not recorded; name the files to score');
  const data = await loadTrainingData({ ...run, model: config, train: { ...run.train, batchSize } }, undefined);
  const part = split ?? (data.test ? 'test' : 'validation');
  const scored = part === 'train' ? data.train : data[part];
  if (scored) return { part, batches: scored.batches() };
  const train = part === 'train' ? 'are generated without end' : `have no part for ${part}`;
  throw new Error(`eval: the data the model was trained on ${train}; name another --split, or the files to score`);
}

/** The text of the files, or the held-out part of the data the model was trained on. */
async function textToScore(
  opened: OpenedModel,
  vocabSize: number,
  files: string[],
  { seqLen: given, batchSize }: EvalFlags,
): Promise<ValidationData> {
  const { run, config } = opened;
  const tokenizer = tokenizerOf(opened);
  const seqLen = given ?? run?.train.seqLen ?? 256;
  if (files.length) {
    const stream = tokenizeDocuments(await readDocuments({ type: 'text', files }), tokenizer, 'join');
    checkTokens(stream.tokens, vocabSize);
    return validationData(stream, tokenizer, { seqLen, batchSize });
  }
  if (!run) throw new Error('eval: the data of this model are not recorded; name the text files to score');
  const train = { ...run.train, seqLen, batchSize };
  const { source } = run.data;
  const data =
    given && isTask(source) && !isLabelled(source)
      ? { ...run.data, source: { ...source, valSeqLen: given } }
      : run.data;
  const { validation } = await loadTrainingData({ ...run, data, model: config, train }, tokenizer);
  if (validation) return validation;
  throw new Error('eval: the model was trained without a validation part; name the text files to score');
}
