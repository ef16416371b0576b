/** Worker threads that answer calls, and what is said of one that does not. Node only. */
export { type Answer, type Arguments, type Method, Thread, WorkerError } from './thread.js';
