/** `metrics.jsonl`: one JSON object a line. A resumed run drops the lines past its checkpoint, so the file reads as one unbroken run. */
import { appendFileSync, existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';

export interface MetricsRow {
  /** `train` every logged step, `eval` at every evaluation, `final` over the whole validation part. */
  kind: 'train' | 'eval' | 'final';
  /** Updates done so far. */
  step: number;
  /** Mean negative log likelihood, nats per token or sequence; of a regressor mean squared error. */
  loss: number;
  /** Bits per byte of text; absent for a generated task. */
  bpb?: number;
  /** Share of the targets of a generated task or a classifier that were the likeliest. */
  accuracy?: number;
  [name: string]: number | string | boolean | undefined;
}

export class MetricsLog {
  constructor(readonly file: string) {}

  append(row: MetricsRow): void {
    appendFileSync(this.file, `${JSON.stringify(row)}\n`);
  }

  /** Forget everything after `step`, and the final score: a resumed run writes it anew. A last line cut short by a crash goes too. */
  truncateAfter(step: number): void {
    if (!existsSync(this.file)) return;
    const kept = this.read().filter((row) => row.step <= step && row.kind !== 'final');
    const temporary = `${this.file}.tmp`;
    writeFileSync(temporary, kept.map((row) => `${JSON.stringify(row)}\n`).join(''));
    renameSync(temporary, this.file);
  }

  read(): MetricsRow[] {
    if (!existsSync(this.file)) return [];
    return readFileSync(this.file, 'utf8')
      .split('\n')
      .flatMap((line) => {
        try {
          return line ? [JSON.parse(line) as MetricsRow] : [];
        } catch {
          return [];
        }
      });
  }
}
