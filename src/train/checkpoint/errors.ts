/** A checkpoint or model folder that cannot be trusted: nothing of it was loaded. */
export class CheckpointError extends Error {
  override readonly name = 'CheckpointError';
}
