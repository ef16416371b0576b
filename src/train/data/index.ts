/** Training data: sources, tokens, batches. */
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
export { type NpmPackage, npmSources, readNpmSource } from './npmSources.js';
export {
  type Batch,
  type BatchReader,
  IGNORE_INDEX,
  type ReaderPosition,
  SequenceReader,
  type SequenceReaderOptions,
} from './reader.js';
export { type DataSource, defaultDocuments, findFiles, readDocuments, type TextDocument } from './sources.js';
export { createTask, isTask, type Task, TaskReader, type TaskReaderOptions, type TaskSource } from './tasks/index.js';
export { loadTrainingData, type TrainingData, type ValidationData, validationData } from './trainingData.js';
