export { type DoctorReport, doctor, formatDoctor } from './backend/doctor.js';
export type { NativeOption } from './backend/native.js';
export type { RelaxedSimd } from './backend/relaxedSimd.js';
export { type BackendName, type BackendOptions, useBackend } from './backend/useBackend.js';
