/** The datanode: holds sealed segments for search and query, builds indexes, copies objects. */
export { type DataNodeOptions, DataNodeService } from './datanode-service.ts';
