/** The small ops against the golden vectors primitives_*: every tensor in them, on the kernel, in plain ops and on the cpu backend. */
import * as tf from '@tensorflow/tfjs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { causalConv1d, gatedRmsNorm, kdaGate, l2Norm } from '../../src/chunked/index.js';
import { useBackend } from '../../src/index.js';
import { type GoldenEntry, goldenEntries, readGolden } from '../support/golden.js';
import { outputsAndGrads, values } from '../support/tensors.js';

type Tensors = Record<string, tf.Tensor>;
type Form = 'auto' | 'plain';

function conv({ conv_x, conv_weight, conv_cache, d_conv_y }: Tensors, form: Form): Tensors {
  const inputs = { x: conv_x, weight: tf.squeeze(conv_weight, [1]), initialState: conv_cache };
  const op = (all: typeof inputs) => {
    const { o, finalState } = causalConv1d(all, { activation: 'silu', form });
    return [o, finalState];
  };
  const { outputs, grads } = outputsAndGrads(op, inputs, [d_conv_y, undefined]);
  return {
    conv_y: outputs[0],
    conv_new_cache: outputs[1],
    d_conv_x: grads.x,
    d_conv_weight: tf.expandDims(grads.weight, 1),
    d_conv_cache: grads.initialState,
  };
}

function norm({ norm_x, gate_logits, norm_weight, d_out }: Tensors, gate: 'swish' | 'sigmoid', form: Form): Tensors {
  const options = { eps: 1e-5, activation: gate === 'swish' ? 'silu' : 'sigmoid', form } as const;
  const inputs = { x: norm_x, gate: gate_logits, weight: norm_weight };
  const { outputs, grads } = outputsAndGrads((all) => [gatedRmsNorm(all, options)], inputs, [d_out]);
  return {
    [`rmsnorm_${gate}`]: outputs[0],
    [`d_norm_x_${gate}`]: grads.x,
    [`d_norm_weight_${gate}`]: grads.weight,
    [`d_gate_${gate}`]: grads.gate,
  };
}

function unit({ norm_x, d_out }: Tensors, form: Form): Tensors {
  const { outputs, grads } = outputsAndGrads((all) => [l2Norm(all, { form })], { x: norm_x }, [d_out]);
  return { l2norm: outputs[0], d_l2norm_x: grads.x };
}

function kda({ kda_f, A_log, dt_bias, d_out }: Tensors, { config }: GoldenEntry, form: Form): Tensors {
  const lowerBound = config.kda_lower_bound === 'None' ? undefined : Number(config.kda_lower_bound);
  const inputs = { f: kda_f, aLog: A_log, dtBias: dt_bias };
  const { outputs, grads } = outputsAndGrads((all) => [kdaGate(all, { lowerBound, form })], inputs, [d_out]);
  return { kda_g: outputs[0], d_kda_f: grads.f, d_A_log: grads.aLog, d_dt_bias: grads.dtBias };
}

describe.each([
  ['wasm', 'auto'],
  ['wasm', 'plain'],
  ['cpu', 'auto'],
] as const)('%s backend, %s form', (backend, form) => {
  beforeAll(() => useBackend(backend));
  afterAll(() => useBackend('wasm'));

  test.each(goldenEntries('primitives').map((entry) => [entry.file, entry] as const))('%s', (file, entry) => {
    tf.tidy(() => {
      const golden = readGolden(file);
      const got = {
        ...conv(golden, form),
        ...norm(golden, 'swish', form),
        ...norm(golden, 'sigmoid', form),
        ...unit(golden, form),
        ...kda(golden, entry, form),
      };
      expect(Object.keys(got).sort()).toEqual(Object.keys(entry.outputs).sort());
      for (const [name, tensor] of Object.entries(got)) {
        expect(tensor.shape, name).toEqual(golden[name].shape);
        const want = values(golden[name]);
        const worst = Array.from(values(tensor)).reduce((w, v, i) => Math.max(w, Math.abs(v - want[i])), 0);
        expect(worst, name).toBeLessThanOrEqual(entry.tolerances[name].max_abs);
      }
    });
  });
});
