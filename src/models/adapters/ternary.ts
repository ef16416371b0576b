/** What no published class of dense weights can say. */
import { type Problem, quote } from '../../config/problems.js';
import type { ModelConfig } from '../config.js';

export function ternaryProblems({ linear, mlp }: ModelConfig): Problem[] {
  const fault = (path: string, want: string, got: string) => ({
    path,
    message: `the published class has dense weights: must be ${quote(want)}, got ${quote(got)}`,
  });
  return [
    ...(linear === 'bit' ? [fault('linear', 'dense', 'bit')] : []),
    ...(mlp.type === 'bit_glu' ? [fault('mlp.type', 'swiglu', 'bit_glu')] : []),
  ];
}
