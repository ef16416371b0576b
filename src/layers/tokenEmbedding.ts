/** A table of one vector per token. */
import * as tf from '@tensorflow/tfjs';
import { embedding } from '../chunked/index.js';
import { type LayerArgs, type LayerOutput, SeqLayer, type WeightSpec } from './seqLayer.js';
import { matrix } from './weightSpecs.js';

export interface TokenEmbeddingOptions {
  /** Width D of a token's vector. */
  hiddenSize: number;
  /** Rows of the table; token ids are 0 .. vocabSize - 1. Default 256: bytes. */
  vocabSize: number;
  /** Together with the layer's name, the start of the weights where no model gives it; default 0. */
  seed: number;
}

/** Token ids [B, T] (int32; a `tf.model` may hand them over as float32) -> [B, T, D]; stateless */
export class TokenEmbedding extends SeqLayer<TokenEmbeddingOptions> {
  static readonly className: string = 'TokenEmbedding';

  constructor(args: LayerArgs<TokenEmbeddingOptions>) {
    super(args, { vocabSize: 256, seed: 0 });
    this.requirePositive('vocabSize');
  }

  override weightSpecs(): Record<string, WeightSpec> {
    const { vocabSize, hiddenSize } = this.options;
    return { weight: matrix(vocabSize, hiddenSize) };
  }

  protected override run(x: tf.Tensor): LayerOutput {
    const ids = x.dtype === 'int32' ? x : tf.cast(x, 'int32');
    return { y: embedding({ ids, table: this.need('weight') }), state: {} };
  }

  protected override checkInput(shape: (number | null)[]): void {
    if (shape.length !== 2)
      throw new RangeError(`${this.label}: token ids must have shape [B,T], got [${shape.map((n) => n ?? '*')}]`);
  }

  protected override buildInput(): tf.Tensor {
    return tf.zeros([1, 1], 'int32');
  }

  override computeOutputShape(inputShape: (number | null)[] | (number | null)[][]): (number | null)[] {
    return [...super.computeOutputShape(inputShape), this.options.hiddenSize];
  }
}
tf.serialization.registerClass(TokenEmbedding);
