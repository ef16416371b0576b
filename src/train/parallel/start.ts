/** What a thread needs to build its replica. */
import type { AdamWOptions } from '../../chunked/adamW/index.js';
import type { RunConfig } from '../../config/index.js';
import type { Weights } from '../checkpoint/index.js';

export interface ReplicaStart {
  /** Its place among all: 1 and up; the main thread is 0. */
  member: number;
  members: number;
  /** Of the `SharedGradients`. */
  memory: SharedArrayBuffer;
  backend: RunConfig['backend'];
  config: RunConfig['model'];
  weights: Weights;
  adamW: AdamWOptions;
  moments: Weights;
  step: number;
}
