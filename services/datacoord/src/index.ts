export { CONTROL_CHANNEL } from './control-channel.ts';
export { DataCoordService, dataCoordSettings, readLeader } from './coordinator.ts';
export { type DataCoordSettings, defaultSettings } from './settings.ts';
export type { DataCoordResources } from './term.ts';
