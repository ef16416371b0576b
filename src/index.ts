export { useBackend } from './backend/useBackend.js';
