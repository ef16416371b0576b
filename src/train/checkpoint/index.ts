/** Checkpoints, model folders and the safetensors format. */

export { bfloat16ToFloat32, float16ToFloat32, float32ToBfloat16, float32ToFloat16 } from '../../formats/float16.js';
export {
  readSafetensors,
  readShardIndex,
  type SafeTensor,
  SafetensorsError,
  type SafetensorsFile,
  type TensorToWrite,
  tensorToFloat32,
  writeSafetensors,
} from '../../formats/safetensors.js';
export {
  bestCheckpoint,
  type CheckpointParts,
  dropCheckpointsAfter,
  latestCheckpoint,
  loadCheckpoint,
  type SaveOptions,
  saveCheckpoint,
} from './checkpoint.js';
export { CheckpointError } from './errors.js';
export { exportModel, type LoadedModel, loadModelDir, type ModelExport } from './modelFolder.js';
export { lockRun } from './runLock.js';
export { decodeWeights, encodeWeights, type Weight, type Weights } from './weights.js';
