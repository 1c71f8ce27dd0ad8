export type { StreamingCatalog } from './catalog-face.ts';
export type { StampSource } from './coordinator.ts';
export { type StreamingOptions, StreamingService } from './streaming-service.ts';
