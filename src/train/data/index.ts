/** Training data: sources, tokens, batches. */
export {
  type AnyBatch,
  type Batch,
  type BatchReader,
  IGNORE_INDEX,
  isLabelledBatch,
  type LabelledBatch,
  type ReaderPosition,
} from './batch.js';
export {
  checkTokens,
  type DataConfig,
  type Dataset,
  loadDataset,
  splitStream,
  type TokenStream,
  tokenizeDocuments,
} from './dataset.js';
export { DataError } from './errors.js';
export {
  addSinusoids,
  batchOf,
  corrupted,
  type Example,
  type Examples,
  fitted,
  isLabelled,
  LabelledReader,
  type LabelledReaderOptions,
  type LabelledSource,
  listops,
  type Part,
  readExamples,
  type SinusoidNoise,
  sequentialMnist,
  sinusoids,
} from './labelled/index.js';
export { type NpmPackage, npmSources, readNpmSource } from './npmSources.js';
export { SequenceReader, type SequenceReaderOptions } from './reader.js';
export { type DataSource, defaultDocuments, findFiles, readDocuments, type TextDocument } from './sources.js';
export { createTask, isTask, type Task, TaskReader, type TaskReaderOptions, type TaskSource } from './tasks/index.js';
export { loadTrainingData, type TrainingData, type ValidationData, validationData } from './trainingData.js';
