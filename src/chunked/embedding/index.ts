/** A table of one vector per token. */
import * as tf from '@tensorflow/tfjs';
import { checkDtype, checkGiven, checkShapes } from '../check.js';
import { isFused, type PlainForm } from '../form.js';
import { checkIndices, nanOutside } from '../indices.js';
import { fusedOp } from '../wasm/fusedOp.js';

export interface EmbeddingOptions {
  form?: PlainForm;
}

/**
 * The table's row of every id.
 * On webgpu, whose data cannot be read at the call, an id out of range gives a row of NaN instead of an error.
 * @param inputs ids [...], int32, each in 0 .. V - 1; table [V, D], float32
 * @returns [..., D]
 * @throws RangeError naming the first id out of range, its position and V
 */
export function embedding(
  { ids, table }: { ids: tf.Tensor; table: tf.Tensor },
  { form = 'auto' }: EmbeddingOptions = {},
): tf.Tensor {
  checkGiven('embedding', { ids, table });
  checkDtype('embedding', { ids }, 'int32');
  checkDtype('embedding', { table });
  checkShapes('embedding', { table: [table, [null, null]] });
  const V = table.shape[0] as number;
  checkIndices('embedding', { name: 'ids', of: 'rows in the table' }, ids, V);
  if (isFused('embedding', form)) return fused({ ids, table }, {})[0];
  return tf.tidy(() => plainEmbedding(ids, table, V));
}

function plainEmbedding(ids: tf.Tensor, table: tf.Tensor, V: number): tf.Tensor {
  const flat = tf.reshape(ids, [ids.size]);
  const rows = tf.gather(table, flat as tf.Tensor1D);
  const wrong = nanOutside(flat, V);
  return tf.reshape(wrong ? tf.add(rows, tf.expandDims(wrong, 1)) : rows, [...ids.shape, table.shape[1] as number]);
}

const fused = fusedOp<'ids' | 'table', object>({
  name: 'Embedding',
  inputs: ['ids', 'table'],
  forward(ctx, { ids, table }) {
    const D = table.shape[1];
    const y = ctx.out([...ids.shape, D]);
    ctx.kernels.embeddingFwd(ctx.ptr(ids), ctx.ptr(table), ctx.ptr(y), size(ids), D);
    return [y];
  },
  backward(ctx, [dy], { ids, table }) {
    const [V, D] = table.shape;
    const n = size(ids);
    const dTable = ctx.out(table.shape);
    ctx.scratch(4 * (V + 1 + n), (starts) => {
      const order = starts + 4 * (V + 1);
      ctx.kernels.embeddingBwd(ctx.ptr(ids), ctx.ptr(dy), ctx.ptr(dTable), n, V, D, starts, order);
    });
    return { table: dTable };
  },
});

const size = (x: tf.TensorInfo) => tf.util.sizeFromShape(x.shape);
