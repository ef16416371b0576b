/** Initial values of diagonal state-space layers, and what shows how good they are: float64, no TensorFlow.js. */
export { Rng } from '../rng.js';
export { type ComplexArray, interleaved } from './complexArray.js';
export { type DiscreteModes, type DiscretisationRule, discretise } from './discretise.js';
export type { StepRange } from './draws.js';
export { legsBlaschke, legsInput } from './hippo.js';
export { ModeBasis, type ModeBasisOptions } from './modeBasis.js';
export { firstOrderBound, generalBound, skewBound } from './ptd/bounds.js';
export type { PtdOptions } from './ptd/index.js';
export { initialS4d, type S4dInitOptions, type S4dValues } from './s4d.js';
export { initialS5, type S5InitOptions, type S5Values } from './s5.js';
export { type S4dSpectrum, type SpectrumOptions, s4dSpectrum } from './spectra.js';
export { type ModelStudy, type SizeStudy, type StudyOptions, transferStudy } from './study.js';
export {
  type Complex,
  frequencyGrid,
  legsDiscreteTransfer,
  legsTransfer,
  type ModalSystem,
  modalDiscreteTransfer,
  modalSystem,
  modalTransfer,
  spikeFrequencies,
  supError,
} from './transfer.js';
export { type PositiveTransform, untransformed } from './transforms.js';
