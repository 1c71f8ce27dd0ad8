import { counter, gauge } from '@cairn/telemetry';

/** What this service measures of itself. */
export const scrubbedBytes = counter('cairn_scrub_bytes', { description: 'Bytes of snapshots read in the background', unit: 'By' });
export const scrubbedSnapshots = counter<{ outcome: 'whole' | 'damaged' }>('cairn_scrub_snapshots', {
  description: 'Snapshots read and compared in full in the background',
  unit: '{snapshot}',
});
export const damagedSnapshots = gauge('cairn_snapshots_damaged', {
  description: 'Snapshots that the last scrub of each found damaged',
  unit: '{snapshot}',
});
export const drills = counter<{ outcome: 'completed' | 'failed' }>('cairn_drills', {
  description: 'Restores on trial that ended',
  unit: '{drill}',
});
