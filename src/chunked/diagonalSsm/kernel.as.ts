/** Diagonal state spaces on the tensors where they lie (derivation: README.md). */
export { diagonalSsmBwd, diagonalSsmBwdScratch } from './backward.as';
export { diagonalSsmFwd, diagonalSsmFwdScratch } from './forward.as';
export { diagonalSsmToken, diagonalSsmTokenScratch } from './token.as';
export { diagonalSsmWeightsBwd, diagonalSsmWeightsFwd, diagonalSsmWeightsScratch } from './weights.as';
