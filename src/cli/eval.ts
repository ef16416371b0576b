import { type BackendName, useBackend } from '../backend/useBackend.js';
import {
  checkTokens,
  isTask,
  loadTrainingData,
  readDocuments,
  tokenizeDocuments,
  type ValidationData,
  validationData,
} from '../train/data/index.js';
import { describeEvaluation, evaluate, gzipBitsPerByte } from '../train/evaluate.js';
import { createModel, type OpenedModel, openModel, tokenizerOf } from '../train/openModel.js';
import type { Tokenizer } from '../train/tokenizers/index.js';

interface Options {
  seqLen?: number;
  batchSize: number;
  json: boolean;
  backend: BackendName;
}

/** `seqmix eval`. */
export async function runEval(reference: string, files: string[], options: Options): Promise<number> {
  const opened = await openModel(reference);
  const tokenizer = tokenizerOf(opened);
  const data = await dataToScore(opened, tokenizer, files, options);
  await useBackend(options.backend);
  const model = createModel(opened);
  const start = performance.now();
  const evaluation = await evaluate(model, data.batches(), data.bytesPerToken);
  const tokensPerSecond = Math.round(evaluation.tokens / ((performance.now() - start) / 1e3));
  model.dispose();
  const gzipBpb = data.bytes && gzipBitsPerByte(data.bytes());
  const result = { model: opened.path, step: opened.step, ...evaluation, gzipBpb, tokensPerSecond };
  if (options.json) console.log(JSON.stringify(result, null, 2));
  else {
    console.log(`${opened.path}${opened.step === undefined ? '' : `, step ${opened.step}`}`);
    console.log(describeEvaluation(evaluation));
    if (gzipBpb !== undefined) console.log(`gzip -9 of the same bytes: ${gzipBpb.toFixed(3)} bits/byte`);
    console.log(`${tokensPerSecond.toLocaleString('en')} tokens per second`);
  }
  return 0;
}

/** The text of the files, or the held-out part of the data the model was trained on. */
async function dataToScore(
  { run, config }: OpenedModel,
  tokenizer: Tokenizer,
  files: string[],
  { seqLen: given, batchSize }: Options,
): Promise<ValidationData> {
  const seqLen = given ?? run?.train.seqLen ?? 256;
  if (files.length) {
    const stream = tokenizeDocuments(await readDocuments({ type: 'text', files }), tokenizer, 'join');
    checkTokens(stream.tokens, config.vocabSize);
    return validationData(stream, tokenizer, { seqLen, batchSize });
  }
  if (!run) throw new Error('eval: the data of this model are not recorded; name the text files to score');
  const train = { ...run.train, seqLen, batchSize };
  const { source } = run.data;
  const data = given && isTask(source) ? { ...run.data, source: { ...source, valSeqLen: given } } : run.data;
  const { validation } = await loadTrainingData({ ...run, data, model: config, train }, tokenizer);
  if (validation) return validation;
  throw new Error('eval: the model was trained without a validation part; name the text files to score');
}
