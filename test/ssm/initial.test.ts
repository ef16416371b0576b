/** Initial values of S4D and S5: kernels of the stored vectors, laws, shapes, determinism, errors. */
import { Matrix } from 'ml-matrix';
import { describe, expect, test } from 'vitest';
import { Rng } from '../../src/rng.js';
import { discretise } from '../../src/ssm/discretise.js';
import { type ComplexArray, interleaved, legsInput, legsTransfer, modalTransfer } from '../../src/ssm/index.js';
import { ModeBasis } from '../../src/ssm/modeBasis.js';
import { initialS4d, type S4dInitOptions } from '../../src/ssm/s4d.js';
import { initialS5, type S5InitOptions } from '../../src/ssm/s5.js';
import { type Complex, impulseResponse } from '../oracle/stateSpace.js';
import { goldenEntries, readGoldenNumbers } from '../support/golden.js';

const s4d = (options: S4dInitOptions, seed = 0) => initialS4d(options, new Rng(seed));
const s5 = (options: S5InitOptions, seed = 0) => initialS5(options, new Rng(seed));
const power = ({ re, im }: ComplexArray) => re.reduce((sum, x, i) => sum + x * x + im[i] ** 2, 0) / re.length;
const list = (x: ComplexArray) => Array.from(x.re, (re, n): Complex => [re, x.im[n]]);

describe('stored kernels from their parameters', () => {
  const [entry] = goldenEntries('s4d_kernel');
  const stored = readGoldenNumbers(entry.file);
  const names = entry.config.cases.split(' ');
  const [H, M, L] = [Number(entry.config.H), Number(entry.config.N) / 2, Number(entry.config.L)];

  const cases = names.flatMap((name) => (['zoh', 'bilinear'] as const).map((rule) => [name, rule] as const));
  test.each(cases.filter(([name, rule]) => `${name}.K_${rule}` in stored))('%s, %s', (name, rule) => {
    const of = (key: string) => stored[`${name}.${key}`].data;
    const decay = (i: number) =>
      name === 'relu' ? Math.max(0, of('A_real')[i]) + 1e-4 : Math.exp(of('log_A_real')[i]);
    const pairs = (x: ArrayLike<number>, h: number) =>
      Array.from({ length: M }, (_, m): Complex => [x[2 * (h * M + m)], x[2 * (h * M + m) + 1]]);
    for (let h = 0; h < H; h++) {
      const a = {
        re: Float64Array.from({ length: M }, (_, m) => -decay(h * M + m)),
        im: Float64Array.from({ length: M }, (_, m) => of('A_imag')[h * M + m]),
      };
      const { zeta, psi } = discretise(a, Math.exp(of('log_dt')[h]), rule);
      const parts = { zeta: list(zeta), psi: list(psi), b: pairs(of('B'), h), c: pairs(of('C'), h) };
      const got = impulseResponse(parts, L, 2);
      const want = of(`K_${rule}`).subarray(h * L, (h + 1) * L);
      const largest = Math.max(...want.map(Math.abs));
      const error = Math.max(...got.map((x, l) => Math.abs(x - want[l])));
      expect(error).toBeLessThan(1e-7 * largest); // rounded to float32 when stored
    }
  });
});

describe('S4D', () => {
  test('shapes, and one copy of A and B for each channel', () => {
    const { modes, copies, a, b, c, logDt, d } = s4d({ hiddenSize: 6, stateSize: 16, outputs: 2 });
    expect({ modes, copies }).toEqual({ modes: 8, copies: 6 });
    expect([a, b, c].map((x) => x.re.length)).toEqual([48, 48, 96]);
    expect([logDt.length, d.length]).toEqual([6, 12]);
    expect(s4d({ hiddenSize: 6, stateSize: 16, copies: 2 }).a.re).toHaveLength(16);
    expect(s4d({ hiddenSize: 6, stateSize: 16, dtPer: 'mode' }).logDt).toHaveLength(48);
  });

  test('C: E|C|^2 = 1, or both parts of variance 1', () => {
    const of = (cInit: S4dInitOptions['cInit']) => power(s4d({ hiddenSize: 200, cInit }).c); // 6400 numbers: sure to 4/80
    expect(Math.abs(of('normal') - 1)).toBeLessThan(0.05);
    expect(Math.abs(of('unitParts') - 2)).toBeLessThan(0.1);
    expect(Math.abs(of('projected') - 1)).toBeLessThan(0.05);
  });

  test('projected C: with B/2, the transfer function of the normal part for a real C', () => {
    const size = 16;
    const { modes, a, b, c } = s4d({ hiddenSize: 1, stateSize: size, cInit: 'projected' });
    const weights = { re: c.re.map((x, m) => x * b.re[m]), im: c.im.map((x, m) => x * b.re[m]) };
    // C V determines C: C = 2 Re(C V V^H), so the same modes serve as a reference
    const basis = new ModeBasis({ stateSize: size });
    const into = basis.input(Matrix.columnVector([...legsInput(size)]));
    const vectors = basis.output(Matrix.eye(size)); // rows of V
    const real = Float64Array.from({ length: size }, (_, n) => {
      let sum = 0;
      for (let m = 0; m < modes; m++) {
        const phase = [into.re[m], -into.im[m]].map((x) => x / Math.hypot(into.re[m], into.im[m]));
        const [re, im] = [c.re[m] * phase[0] - c.im[m] * phase[1], c.re[m] * phase[1] + c.im[m] * phase[0]];
        sum += 2 * (re * vectors.re[n * modes + m] + im * vectors.im[n * modes + m]);
      }
      return sum;
    });
    for (const omega of [0, 0.5, 3, 80]) {
      const got = modalTransfer({ lambda: a, weights, conjugate: true }, omega);
      const exact = legsTransfer(legsInput(size), real, omega);
      const blaschke = blaschkeOf(size, omega); // G_diag (1 + w) = G
      const product = [
        got[0] * (1 + blaschke[0]) - got[1] * blaschke[1],
        got[0] * blaschke[1] + got[1] * (1 + blaschke[0]),
      ];
      expect(Math.hypot(product[0] - exact[0], product[1] - exact[1])).toBeLessThan(1e-11);
    }
  });

  test('first: the same C in every channel, of unit norm over both halves', () => {
    const { c, modes } = s4d({ hiddenSize: 3, stateSize: 16, cInit: 'first' });
    expect([...c.re.slice(0, modes)]).toEqual([...c.re.slice(modes, 2 * modes)]);
    expect(2 * modes * power(c)).toBeCloseTo(1, 12);
    const { c: plain } = s4d({ hiddenSize: 1, stateSize: 8, spectrum: 'lin', cInit: 'first' });
    expect(list(plain)).toEqual([
      [1, 0],
      [0, 0],
      [0, 0],
      [0, 0],
    ]);
  });

  test('B in the other ways', () => {
    const of = (bInit: S4dInitOptions['bInit']) => list(s4d({ hiddenSize: 1, stateSize: 8, spectrum: 'lin', bInit }).b);
    expect(of('spectrum')).toEqual(of('ones'));
    expect(of('ones')).toEqual(Array(4).fill([1, 0]));
    expect(of('alternating').map(([re]) => re)).toEqual([1, -1, 1, -1]);
    expect(of('unitCw')[2]).toEqual([expect.closeTo(0, 15), expect.closeTo(-1, 15)]);
    expect(of('unitCcw')[2]).toEqual([expect.closeTo(0, 15), expect.closeTo(1, 15)]);
    expect(Math.abs(power(s4d({ hiddenSize: 200, bInit: 'random' }).b) - 1)).toBeLessThan(0.05);
  });

  test('with ptd: B and C of A + E, whose transfer function is close to that of a real C', () => {
    const { modes, a, b, c } = s4d({ hiddenSize: 2, stateSize: 32, ptd: { epsAbs: 0.1 } });
    expect(modes).toBeGreaterThanOrEqual(16);
    const weights = {
      re: c.re.slice(0, modes).map((x, m) => x * b.re[m] - c.im[m] * b.im[m]),
      im: c.re.slice(0, modes).map((x, m) => x * b.im[m] + c.im[m] * b.re[m]),
    };
    const system = { lambda: { re: a.re.slice(0, modes), im: a.im.slice(0, modes) }, weights, conjugate: true };
    const rng = new Rng(0).split('c'); // the stream C is drawn from
    const drawn = Float64Array.from({ length: 32 }, () => rng.normal());
    for (const omega of [0, 1, 20, 325]) {
      const [got, want] = [modalTransfer(system, omega), legsTransfer(legsInput(32), drawn, omega)];
      expect(Math.hypot(got[0] - want[0], got[1] - want[1])).toBeLessThan(0.4 * Math.hypot(...drawn)); // skewBound(0.1)
    }
  });

  test('the seed decides; options of one kind leave the others as they are', () => {
    const [first, again, other] = [s4d({ hiddenSize: 4 }), s4d({ hiddenSize: 4 }), s4d({ hiddenSize: 4 }, 1)];
    expect(first).toEqual(again);
    expect(first.c).not.toEqual(other.c);
    expect(s4d({ hiddenSize: 4, spectrum: 'lin', dtMax: 1 }).c).toEqual(first.c);
  });

  test('as weights: float32, [re, im] last', () => {
    expect(interleaved({ re: Float64Array.of(1, 2), im: Float64Array.of(3, 4) })).toEqual(Float32Array.of(1, 3, 2, 4));
  });

  test.each<[S4dInitOptions, string]>([
    [{ hiddenSize: 0 }, 'hiddenSize must be an integer > 0, got 0'],
    [{ hiddenSize: 4, copies: 3 }, 'copies must divide hiddenSize, got 3 and 4'],
    [{ hiddenSize: 4, spectrum: 'lin', ptd: {} }, 'ptd needs spectrum "legs", got "lin"'],
    [{ hiddenSize: 4, ptd: {}, imagScale: 2 }, 'change S4D spectra, got ptd too'],
    [{ hiddenSize: 4, spectrum: 'lin', cInit: 'projected' }, 'cInit "projected" needs spectrum "legs"'],
  ])('%j is refused', (options, message) => {
    expect(() => s4d(options)).toThrow(message);
  });
});

describe('S5', () => {
  test('shapes', () => {
    const { modes, conjugate, lambda, b, c, cReverse, logStep, d } = s5({
      hiddenSize: 6,
      stateSize: 32,
      blocks: 2,
      bidirectional: true,
    });
    expect({ modes, conjugate }).toEqual({ modes: 16, conjugate: true });
    expect([lambda, b, c, cReverse!].map((x) => x.re.length)).toEqual([16, 96, 96, 96]);
    expect([logStep.length, d.length]).toEqual([16, 6]);
    expect(cReverse).not.toEqual(c);
    expect([...lambda.im.slice(0, 8)]).toEqual([...lambda.im.slice(8)]); // two equal blocks
    expect(s5({ hiddenSize: 6, stateSize: 32, conjugate: false }).modes).toBe(32);
  });

  test('variances: V is unitary, so E|V^* B|^2 = 1 / N, and |C V|^2 twice the parts of C', () => {
    const options = { hiddenSize: 100, stateSize: 64 }; // 3200 numbers: sure to 4/56
    const of = (cInit: S5InitOptions['cInit']) => power(s5({ ...options, cInit }).c);
    expect(Math.abs(64 * power(s5(options).b) - 1)).toBeLessThan(0.07);
    expect(Math.abs(6400 * of('lecun') - 2)).toBeLessThan(0.14);
    expect(Math.abs(64 * of('truncated') - 2)).toBeLessThan(0.14);
    expect(Math.abs(of('complexNormal') - 1)).toBeLessThan(0.07);
  });

  test("hippo B: halved for the normal part, itself with ptd; each column is a block's", () => {
    const options = { hiddenSize: 2, stateSize: 16, blocks: 2, bInit: 'hippo' as const };
    const { b } = s5(options);
    const size = 2 * b.re.reduce((sum, x, i) => sum + x * x + b.im[i] ** 2, 0);
    expect(size).toBeCloseTo(2 * 2 * (8 / 2) ** 2, 9); // columns x blocks x |B/2|^2
    const basis = new ModeBasis({ stateSize: 8, ptd: { epsAbs: 0.4 } });
    const want = basis.input(Matrix.columnVector([...legsInput(8)]));
    const got = s5({ hiddenSize: 1, stateSize: 8, bInit: 'hippo', ptd: { epsAbs: 0.4 } }).b;
    expect(got).toEqual(want);
  });

  test('one of each pair gives what all modes give: 2 Re, or Re', () => {
    for (const ptd of [undefined, { epsAbs: 1, seed: 2 }] as const) {
      const rng = new Rng(5);
      const draw = (n: number) => Array.from({ length: n }, () => rng.normal());
      const [b, c] = [Matrix.columnVector(draw(48)), Matrix.rowVector(draw(48))];
      const [half, whole] = [true, false].map((conjugate) => {
        const basis = new ModeBasis({ stateSize: 48, blocks: 2, ptd, conjugate });
        const { zeta, psi } = discretise(basis.lambda, 0.01);
        const parts = { zeta: list(zeta), psi: list(psi), b: list(basis.input(b)), c: list(basis.output(c)) };
        return impulseResponse(parts, 40, conjugate ? 2 : 1);
      });
      for (const [l, x] of half.entries()) expect(Math.abs(x - whole[l])).toBeLessThan(1e-12);
    }
  });

  test('errors', () => {
    expect(() => s5({ hiddenSize: 4, stateSize: 18, blocks: 2 })).toThrow(
      'stateSize must be an even multiple of blocks, got stateSize 18 and blocks 2',
    );
    expect(() => s5({ hiddenSize: 4, stateSize: 16, cInit: 'none' as 'lecun' })).toThrow('cInit must be "truncated"');
  });
});

/** w_N(i omega) from its product, factor by factor. */
function blaschkeOf(size: number, omega: number): [number, number] {
  let [re, im] = [1, 0];
  for (let k = 0; k < size; k++) {
    const below = (k + 1) ** 2 + omega ** 2;
    const [a, b] = [(-k * (k + 1) + omega ** 2) / below, (omega * (k + 1) + k * omega) / below];
    [re, im] = [re * a - im * b, re * b + im * a];
  }
  return [re, im];
}
