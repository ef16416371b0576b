import * as tf from '@tensorflow/tfjs';
import { expect, test, vi } from 'vitest';
import { type DoctorReport, doctor, formatDoctor, useBackend } from '../../src/index.js';
import { runFresh } from './fresh.js';

test('on wasm: versions, build, fixes and what the backend lacks', async () => {
  const kept = tf.ones([256, 1024]);
  const report = await doctor();
  expect(report.packages).toMatchObject({ '@tensorflow/tfjs': '4.22.0', '@tensorflow/tfjs-backend-wasm': '4.22.0' });
  expect(report.packages.seqmix).toMatch(/^\d+\.\d+\.\d+/);
  expect(report).toMatchObject({ node: process.versions.node, backend: 'wasm', simd: true, threads: 1 });
  expect(report.cpu.count).toBeGreaterThan(0);
  expect(report.relaxedSimd).toEqual({ request: process.env.SEQMIX_RELAXED_SIMD || 'auto', refusal: null });
  expect(report.native).toMatchObject({ request: process.env.SEQMIX_NATIVE || 'auto' });
  expect(report.native.refusal === null).toBe(report.native.library !== null);
  expect(report.kernels?.ops).toEqual(expect.arrayContaining(['fixes', 'swiGlu']));
  expect(report.memory.tensors).toBeGreaterThanOrEqual(kept.size * 4);
  expect(report.memory.wasm).toBeGreaterThan(kept.size * 4);
  expect(report.fixes.every((fix) => fix.installed)).toBe(true);
  expect(report.missingKernels).toEqual(expect.arrayContaining(['Einsum', 'DepthwiseConv2dNativeBackpropInput']));
  expect(report.missingKernels).not.toContain('UnsortedSegmentSum'); // one of the fixes
  kept.dispose();
});

test('on cpu: none of our kernels, no fix of the wasm backend, nothing missing', async () => {
  await useBackend('cpu');
  const report = await doctor();
  await useBackend('wasm');
  expect(report).toMatchObject({ backend: 'cpu', kernels: null, missingKernels: [] });
  expect(report.fixes.map((fix) => fix.name)).toEqual(['cumsum gradient']);
  expect(report.memory.wasm).toBeNull();
});

test('before a backend is chosen it starts none', async () => {
  const { stdout, stderr } = await runFresh(`
    import * as tf from '@tensorflow/tfjs';
    import { doctor } from './src/index.ts';
    const report = await doctor();
    console.log(JSON.stringify({ report, started: Object.keys(tf.engine().registry) }));
  `);
  const { report, started } = JSON.parse(stdout) as { report: DoctorReport; started: string[] };
  expect(stderr).toBe('');
  expect(started).toEqual([]);
  expect(report).toMatchObject({ backend: null, kernels: null, threads: null });
  expect(report.fixes.length).toBeGreaterThan(1);
  expect(report.fixes.some((fix) => fix.installed)).toBe(false);
  const text = formatDoctor(report);
  expect(text).toContain("none chosen yet; call await useBackend('wasm')");
  expect(text).toContain('fix not installed');
});

test('the text has one aligned line for each fact', async () => {
  vi.stubEnv('SEQMIX_RELAXED_SIMD', 'off');
  const text = formatDoctor(await doctor());
  vi.unstubAllEnvs();
  const lines = text.split('\n');
  const column = lines[0].indexOf('0.');
  for (const line of lines) expect(line.slice(column - 2, column), line).toBe('  ');
  expect(text).toMatch(/^relaxed SIMD +yes \(SEQMIX_RELAXED_SIMD: off\)$/m);
  expect(text).toMatch(/^native products +(not )?in use; .* \(SEQMIX_NATIVE: (auto|on|off)\)$/m);
  expect(text).toMatch(/^kernels missing +.*Einsum/m);
  expect(text).toMatch(/^backend tensorflow +(not )?available: /m);
  expect(text).not.toContain('undefined');
});
