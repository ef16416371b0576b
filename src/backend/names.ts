/** The backends, by name. Apart from `useBackend`, so that a config can be checked without loading TensorFlow.js. */
export const BACKENDS = ['wasm', 'webgpu', 'tensorflow', 'cpu'] as const;
export type BackendName = (typeof BACKENDS)[number];
