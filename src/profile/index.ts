/** Where the time goes: kernels timed by phase, as a table and as a trace. */
export { Recorder, type Span } from './recorder.js';
export { formatProfile, profileRows, type Row } from './table.js';
export { type TraceEvent, traceJson } from './trace.js';
