import { SnapshotState } from '@cairn/proto/cairn/meta';
import { gauge, histogram } from '@cairn/telemetry';
import type { CatalogState } from './catalog-state.ts';
import type { KeptBytes } from './snapshot-list.ts';

const snapshotGauge = gauge<{ state: string }>('cairn_snapshots', { description: 'Snapshots by state', unit: '{snapshot}' });
const pinGauge = gauge<{ owner: string }>('cairn_snapshot_pins', {
  description: 'Pins that hold, by owner: a user or a restore',
  unit: '{pin}',
});
const bytesGauge = gauge<{ kept: string }>('cairn_snapshot_retained_bytes', {
  description:
    'Bytes that snapshots keep: exclusive to one of them, or shared with live segments or other snapshots (then counted for each)',
  unit: 'By',
});
const phaseHistogram = histogram<{ phase: CreatePhase }>('cairn_snapshot_create_seconds', {
  description: 'Time of CreateSnapshot by phase, and in all',
  unit: 's',
});

/** Parts of a create: control (to the applied message), barrier, capture, manifests, commit; and all of it. */
export type CreatePhase = 'control' | 'barrier' | 'capture' | 'manifests' | 'commit' | 'total';

export function recordPhase(phase: CreatePhase, ms: number): void {
  phaseHistogram.record(ms / 1_000, { phase });
}

const NAMES = [
  ['pending', SnapshotState.SNAPSHOT_PENDING],
  ['deleting', SnapshotState.SNAPSHOT_DELETING],
  ['failed', SnapshotState.SNAPSHOT_FAILED],
] as const;

/** How many there are now. Looks only at those that are not committed, and at pins. */
export function recordCounts(state: CatalogState, nowMs: number): void {
  const unsettled = [...state.snapshotIndex.unsettled()];
  for (const [name, number] of NAMES) snapshotGauge.record(unsettled.filter((record) => record.state === number).length, { state: name });
  snapshotGauge.record(state.snapshots.size - unsettled.length, { state: 'committed' });
  const pins = { user: 0, restore: 0 };
  for (const { expiresMs, owner } of state.pins.values()) {
    if (expiresMs === 0 || expiresMs > nowMs) pins[owner === 'user' ? 'user' : 'restore']++;
  }
  for (const [owner, count] of Object.entries(pins)) pinGauge.record(count, { owner });
}

export function recordBytes(kept: Iterable<KeptBytes>): void {
  const sum = { exclusive: 0, shared: 0 };
  for (const { exclusive, shared } of kept) {
    sum.exclusive += exclusive;
    sum.shared += shared;
  }
  bytesGauge.record(sum.exclusive, { kept: 'exclusive' });
  bytesGauge.record(sum.shared, { kept: 'shared' });
}
