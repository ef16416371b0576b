import type { SequenceConfig } from '../models/index.js';
import { batchOf, fitted, type LabelledBatch, readExamples } from '../train/data/index.js';

/** The sequences of files as a model takes them, in their order. @param labelled false: labels may be missing */
export async function labelledFiles(
  files: readonly string[],
  model: SequenceConfig,
  { batchSize, labelled = true }: { batchSize: number; labelled?: boolean },
): Promise<{ batches: LabelledBatch[]; places: string[] }> {
  const raw = await readExamples(files);
  const examples = raw.map((one) => fitted(one, model, labelled));
  const starts = Array.from({ length: Math.ceil(examples.length / batchSize) }, (_, i) => i * batchSize);
  const batches = starts.map((start) => batchOf(examples.slice(start, start + batchSize), model.inputSize ?? 0));
  return { batches, places: raw.map(({ place }) => place) };
}
