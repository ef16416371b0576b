/** Training data that is missing, empty, malformed or too short. */
export class DataError extends Error {
  override readonly name = 'DataError';
}
