/** The page's script: the scenarios, on any backend. */
import '@tensorflow/tfjs-backend-webgpu';

export * from './scenarios.js';
