/** The thread of some layers: builds them, then reads prompts. It is started by `PrefillPool` and exports nothing. */
import type { MessagePort } from 'node:worker_threads';
import type { BackendName, BackendOptions } from '../backend/useBackend.js';
import { useBackend } from '../backend/useBackend.js';
import type { ModelConfig, NamedArrays, PackedArrays } from '../models/index.js';
import { type LayerRange, LayerStage } from '../models/layerRange.js';
import { answerCalls, startOf } from '../threads/answerCalls.js';
import { Inlet, Outlet } from './link.js';
import { StageReader } from './stage.js';

/** What the thread is started with. */
export interface StageStart {
  backend: BackendOptions & { name: BackendName };
  config: ModelConfig;
  range: LayerRange;
  /** Of the layers in the range. */
  weights: NamedArrays;
  /** Those of them that are packed. */
  packed: PackedArrays;
  /** From the thread of the layers before. */
  inlet: MessagePort;
  /** To that of the layers after; absent for the last ones. */
  outlet?: MessagePort;
}

const { data, pulse } = startOf<StageStart>();
const { backend, config, range, weights, packed, inlet, outlet } = data;
await useBackend(backend.name, backend);
const stage = new LayerStage(config, range, weights, packed);
answerCalls(
  new StageReader(stage, config.hiddenSize, new Inlet(inlet), outlet ? new Outlet(outlet) : undefined, pulse),
);
