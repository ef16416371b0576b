/** Discretisation as kernels on the wasm backend: shapes and memory; the arithmetic is in kernel.as.ts. */
import { fusedOp } from '../wasm/fusedOp.js';
import type { DiscretiseInputs, DiscretiseOutput, DiscretiseSizes } from './index.js';

interface Attrs extends DiscretiseSizes {
  /** Of both outputs. */
  shape: number[];
  bilinear: boolean;
}

export function fusedDiscretise(inputs: DiscretiseInputs, attrs: Attrs): DiscretiseOutput {
  const [zeta, psi] = fused({ ...inputs }, attrs);
  return { zeta, psi };
}

const fused = fusedOp<'dt' | 'a', Attrs>({
  name: 'Discretise',
  inputs: ['dt', 'a'],
  forward(ctx, { dt, a }, attrs) {
    const outputs = [ctx.out(attrs.shape), ctx.out(attrs.shape)];
    ctx.kernels.discretiseFwd(...[dt, a, ...outputs].map((x) => ctx.ptr(x)), ...numbers(attrs));
    return outputs;
  },
  backward(ctx, [gZeta, gPsi], { dt, a }, _, attrs) {
    const [gDt, gA] = [ctx.out(dt.shape), ctx.out(a.shape)];
    ctx.scratch(16 * attrs.copies * attrs.M, (total) => {
      ctx.kernels.discretiseBwd(...[dt, a, gZeta, gPsi, gDt, gA].map((x) => ctx.ptr(x)), ...numbers(attrs), total);
    });
    return { dt: gDt, a: gA };
  },
});

const numbers = ({ rows, copies, M, each, bilinear }: Attrs) => [rows, copies, M, Number(each), Number(bilinear)];
