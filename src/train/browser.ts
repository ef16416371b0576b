/**
 * What of `seqmix/train` runs in a browser: bundlers that know the condition `browser` take this for `seqmix/train`. Steps, schedule,
 * batches out of a token stream, tokenizers, text from a model, and weights from bytes that the page has fetched.
 */
export {
  AdamW,
  type AdamWGroup,
  type AdamWOptions,
  type AdamWState,
  type AdamWStep,
  accumulate,
  NonFiniteGradientError,
} from '../chunked/adamW/index.js';
export { bfloat16ToFloat32, float16ToFloat32, float32ToBfloat16, float32ToFloat16 } from '../formats/float16.js';
export {
  readSafetensors,
  readShardIndex,
  type SafeTensor,
  SafetensorsError,
  type SafetensorsFile,
  type TensorToWrite,
  tensorToFloat32,
  writeSafetensors,
} from '../formats/safetensors.js';
export { decodeWeights, encodeWeights, type Weight, type Weights } from './checkpoint/weights.js';
export {
  type AnyBatch,
  type Batch,
  type BatchReader,
  IGNORE_INDEX,
  type LabelledBatch,
  type ReaderPosition,
} from './data/batch.js';
export type { TokenStream } from './data/dataset.js';
export { DataError } from './data/errors.js';
export { addSinusoids, corrupted, type SinusoidNoise } from './data/labelled/corruption.js';
export type { Example, Examples } from './data/labelled/examples.js';
export { listops } from './data/labelled/listops.js';
export { batchOf, LabelledReader, type LabelledReaderOptions } from './data/labelled/reader.js';
export { sinusoids } from './data/labelled/sinusoids.js';
export { SequenceReader, type SequenceReaderOptions } from './data/reader.js';
export {
  createTask,
  isTask,
  type Task,
  TaskReader,
  type TaskReaderOptions,
  type TaskSource,
} from './data/tasks/index.js';
export { type SampleOptions, sampleText, streamText } from './sample.js';
export { learningRate, type ScheduleOptions } from './schedule.js';
export { batchLoss, NonFiniteLossError, type StepResult, trainStep, type UpdateOptions } from './step.js';
export { ByteTokenizer } from './tokenizers/bytes.js';
export { HuggingFaceTokenizer, type TokenizerJson, vocabSizeOf } from './tokenizers/huggingface.js';
export { IdTokenizer } from './tokenizers/ids.js';
export { bytesPerToken, type StreamDecoder, type Tokenizer, type Tokens } from './tokenizers/tokenizer.js';
export { modelWeights, momentsFrom, optimizerMoments } from './weights.js';
