import { type BackendName, useBackend } from '../backend/useBackend.js';
import {
  checkTokens,
  loadTrainingData,
  readDocuments,
  tokenizeDocuments,
  type ValidationData,
  validationData,
} from '../train/data/index.js';
import { evaluate, gzipBitsPerByte } from '../train/evaluate.js';
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
  const data = await textToScore(opened, tokenizer, files, options);
  await useBackend(options.backend);
  const model = createModel(opened);
  const start = performance.now();
  const { loss, bpb, tokens } = await evaluate(model, data.batches(), data.bytesPerToken);
  const tokensPerSecond = Math.round(tokens / ((performance.now() - start) / 1e3));
  model.dispose();
  const gzip = gzipBitsPerByte(data.bytes());
  const result = { model: opened.path, step: opened.step, loss, bpb, tokens, gzipBpb: gzip, tokensPerSecond };
  if (options.json) console.log(JSON.stringify(result, null, 2));
  else {
    console.log(`${opened.path}${opened.step === undefined ? '' : `, step ${opened.step}`}`);
    console.log(
      `${loss.toFixed(4)} nats/token, ${bpb.toFixed(3)} bits/byte over ${tokens.toLocaleString('en')} tokens`,
    );
    console.log(`gzip -9 of the same bytes: ${gzip.toFixed(3)} bits/byte`);
    console.log(`${tokensPerSecond.toLocaleString('en')} tokens per second`);
  }
  return 0;
}

/** The text of the files, or the validation part of the data the model was trained on. */
async function textToScore(
  { run, config }: OpenedModel,
  tokenizer: Tokenizer,
  files: string[],
  { seqLen = run?.train.seqLen ?? 256, batchSize }: Options,
): Promise<ValidationData> {
  if (files.length) {
    const stream = tokenizeDocuments(await readDocuments({ type: 'text', files }), tokenizer, 'join');
    checkTokens(stream.tokens, config.vocabSize);
    return validationData(stream, tokenizer, { seqLen, batchSize });
  }
  if (!run) throw new Error('eval: the data of this model are not recorded; name the text files to score');
  const train = { ...run.train, seqLen, batchSize };
  const { validation } = await loadTrainingData({ ...run, model: config, train }, tokenizer);
  if (validation) return validation;
  throw new Error('eval: the model was trained without a validation part; name the text files to score');
}
