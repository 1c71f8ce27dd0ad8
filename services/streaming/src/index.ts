export type { StampSource } from './coordinator.ts';
export { type StreamingOptions, StreamingService } from './streaming-service.ts';
