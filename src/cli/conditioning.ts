import { type BackendName, useBackend } from '../backend/useBackend.js';
import { formatConditioning, measureConditioning, plotConditioning } from '../inspect/index.js';
import { replaceFile } from '../train/checkpoint/files.js';
import { readDocuments, tokenizeDocuments } from '../train/data/index.js';
import { createModel, openModel, tokenizerOf } from '../train/openModel.js';

interface Options {
  text: string;
  tokens: number;
  positions: number;
  plot?: string;
  json: boolean;
  backend: BackendName;
}

/** `seqmix describe --conditioning`. */
export async function runConditioning(
  reference: string,
  { text, tokens, positions, plot, json, backend }: Options,
): Promise<number> {
  const opened = await openModel(reference);
  const documents = await readDocuments({ type: 'text', files: [text] });
  const ids = tokenizeDocuments(documents, tokenizerOf(opened), 'join').tokens.subarray(0, tokens);
  await useBackend(backend);
  const model = createModel(opened);
  const conditioning = await measureConditioning(model, ids, { positions });
  model.dispose();
  if (plot) await replaceFile(plot, Buffer.from(await plotConditioning(conditioning, opened.path)));
  const result = { model: opened.path, step: opened.step, text, ...conditioning };
  console.log(json ? JSON.stringify(result, null, 2) : `${opened.path}, ${text}\n${formatConditioning(conditioning)}`);
  if (plot && !json) console.log(`plot: ${plot}`);
  return 0;
}
