/** Embedding, cross entropy and AdamW in float64 on flat row-major arrays. Uses nothing of `src`. */

type Numbers = ArrayLike<number>;

/** y[r] = table[ids[r]] with rows of `D`; dTable sums dy over the rows of each id. */
export function embeddingOracle(ids: Numbers, table: Numbers, D: number, dy: Numbers) {
  const [y, dTable] = [new Float64Array(ids.length * D), new Float64Array(table.length)];
  for (let r = 0; r < ids.length; r++)
    for (let d = 0; d < D; d++) {
      y[r * D + d] = table[ids[r] * D + d];
      dTable[ids[r] * D + d] += dy[r * D + d];
    }
  return { y, dTable };
}

/** loss_r = -log softmax(logits_r)[t_r] for rows of `V`, and its gradient under upstreams dy, one a row; both 0 for ignored rows. */
export function crossEntropyOracle(logits: Numbers, targets: Numbers, V: number, dy: Numbers, ignoreIndex?: number) {
  const [losses, dLogits] = [new Float64Array(targets.length), new Float64Array(logits.length)];
  for (let r = 0; r < targets.length; r++) {
    const t = targets[r];
    if (t === ignoreIndex) continue;
    const x = Array.from({ length: V }, (_, j) => logits[r * V + j]);
    // exp(-loss) = 1 / (1 + others): nothing cancels where the loss is tiny.
    const others = x.reduce((sum, xj, j) => (j === t ? sum : sum + Math.exp(xj - x[t])), 0);
    const largest = Math.max(...x);
    const sum = x.reduce((all, xj) => all + Math.exp(xj - largest), 0);
    losses[r] = others < 1 ? Math.log1p(others) : largest - x[t] + Math.log(sum);
    for (let j = 0; j < V; j++) dLogits[r * V + j] = (dy[r] * Math.exp(x[j] - largest)) / sum;
    dLogits[r * V + t] = others < 1 ? (-dy[r] * others) / (1 + others) : dLogits[r * V + t] - dy[r];
  }
  return { losses, dLogits };
}

export interface AdamWOracleStep {
  learningRate: number;
  weightDecay: number;
  clipNorm?: number;
  groups?: (name: string) => { weightDecay?: number; lrScale?: number };
}

/** AdamW as in PyTorch 2: decay first, then the step along the bias-corrected moments. `weights` is updated in place. */
export class AdamWOracle {
  readonly m: Record<string, Float64Array> = {};
  readonly v: Record<string, Float64Array> = {};
  step = 0;

  constructor(
    readonly weights: Record<string, Float64Array>,
    readonly betas: readonly [number, number],
    readonly eps: number,
  ) {}

  update(grads: Record<string, Numbers>, { learningRate, weightDecay, clipNorm, groups }: AdamWOracleStep): number {
    const [beta1, beta2] = this.betas;
    this.step++;
    const gradNorm = Math.sqrt(
      Object.values(grads).reduce((sum, g) => sum + Array.from(g).reduce((s, x) => s + x * x, 0), 0),
    );
    const clip = clipNorm !== undefined && gradNorm > clipNorm ? clipNorm / gradNorm : 1;
    for (const [name, g] of Object.entries(grads)) {
      const { weightDecay: decay = weightDecay, lrScale = 1 } = groups?.(name) ?? {};
      const [w, rate] = [this.weights[name], learningRate * lrScale];
      this.m[name] ??= new Float64Array(w.length);
      this.v[name] ??= new Float64Array(w.length);
      const [m, v] = [this.m[name], this.v[name]];
      for (let i = 0; i < w.length; i++) {
        const gi = clip * g[i];
        m[i] = beta1 * m[i] + (1 - beta1) * gi;
        v[i] = beta2 * v[i] + (1 - beta2) * gi * gi;
        w[i] *= 1 - rate * decay;
        w[i] -= (rate * (m[i] / (1 - beta1 ** this.step))) / (Math.sqrt(v[i] / (1 - beta2 ** this.step)) + this.eps);
      }
    }
    return gradNorm;
  }
}
