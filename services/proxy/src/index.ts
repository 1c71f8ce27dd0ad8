export { SERVER_VERSION } from './areas/system.ts';
export { type ProxyOptions, ProxyService } from './proxy-service.ts';
