/** Settings of perturb-then-diagonalise starts (https://arxiv.org/abs/2310.01698), and of the learning rates of state spaces. */
import * as z from 'zod';
import { count } from './mixer.js';

/** A learning rate; null: the run's. */
export const rate = () => z.number().min(0).nullable();

export const PTD = 'perturb then diagonalise HiPPO-LegS for the start';

export const ptdSettings = {
  method: z.enum(['none', 'random', 'skew', 'optimised', 'given']).optional().describe('default skew'),
  epsRel: z.number().positive().optional().describe('size of the perturbation / size of HiPPO-LegS; default 0.01'),
  epsAbs: z.number().positive().optional().describe('size of the perturbation, instead of epsRel'),
  gamma: z.number().positive().optional().describe('optimised: weight of the size; default 100'),
  steps: count().optional().describe('optimised: updates; default 300'),
  shape: z.enum(['skew', 'general']).optional().describe('optimised: kind of perturbation; default skew'),
  seed: z.union([z.number(), z.string()]).optional(),
  matrix: z.array(z.array(z.number())).optional().describe('given: the perturbation, row by row'),
  unstable: z.enum(['refuse', 'clip']).optional().describe('modes that grow; default: an error'),
  realModes: z.enum(['halve', 'redraw']).optional().describe('real modes: kept with half their output, or drawn again'),
};

export const ptdSchema = z.strictObject(ptdSettings).describe(PTD);
