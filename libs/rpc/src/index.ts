export * from './call-transport.ts';
export * from './definition.ts';
export { ERROR_TRAILER } from './error-trailer.ts';
export * from './grpc-transport.ts';
export * from './in-process-network.ts';
export * from './rpc-server.ts';
export * from './transport.ts';
