import { defineConfig } from 'vitest/config';

const common = { setupFiles: ['test/support/setup.ts'], testTimeout: 60_000, hookTimeout: 60_000 };
/** Tests of functions alone: their files share one start of TensorFlow.js in each worker, which is half of their time. */
const functions = ['chunked', 'config', 'formats', 'layers', 'models', 'ssm'].map(
  (room) => `test/${room}/**/*.test.ts`,
);

export default defineConfig({
  test: {
    maxWorkers: 2,
    projects: [
      { test: { ...common, name: 'functions', include: functions, isolate: false } },
      { test: { ...common, name: 'processes', include: ['test/**/*.test.ts'], exclude: functions } },
    ],
  },
});
