/** Text to token ids and back. */
export { ByteTokenizer } from './bytes.js';
export { HuggingFaceTokenizer, type TokenizerJson, vocabSizeOf } from './huggingface.js';
export { IdTokenizer } from './ids.js';
export { loadTokenizer, type TokenizerSpec } from './load.js';
export { bytesPerToken, type StreamDecoder, type Tokenizer, type Tokens } from './tokenizer.js';
