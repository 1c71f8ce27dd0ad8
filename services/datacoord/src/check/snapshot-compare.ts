import type { Turns } from '@cairn/base';
import type { SegmentRecord } from '@cairn/proto/cairn/meta';
import type { DiffSnapshotsResponse, PartitionDiff } from '@cairn/proto/cairn/upkeep';
import type { SnapshotBundle } from '@cairn/segment';
import { NumberTable } from '../gc/number-table.ts';
import type { References } from '../gc/references.ts';
import type { KeptBytes } from '../snapshot-list.ts';

/** What `to` has that `from` has not, and the other way: by segment, summed by partition name. */
export function diffSnapshots(from: SnapshotBundle, to: SnapshotBundle): DiffSnapshotsResponse {
  const partitions = new Map<string, PartitionDiff>();
  const of = (bundle: SnapshotBundle, segment: SegmentRecord): PartitionDiff => {
    const name = bundle.definition.partitions.find((one) => one.id === segment.partitionId)?.name ?? `${segment.partitionId}`;
    const diff = partitions.get(name) ?? { partition: name, segmentsAdded: 0, segmentsRemoved: 0, rowsAdded: 0, rowsRemoved: 0 };
    partitions.set(name, diff);
    return diff;
  };
  const before = new Set(from.segments.map((segment) => segment.prefix));
  const after = new Set(to.segments.map((segment) => segment.prefix));
  for (const segment of to.segments) {
    const diff = of(to, segment);
    if (before.has(segment.prefix)) continue;
    diff.segmentsAdded++;
    diff.rowsAdded += segment.rows;
  }
  for (const segment of from.segments) {
    const diff = of(from, segment);
    if (after.has(segment.prefix)) continue;
    diff.segmentsRemoved++;
    diff.rowsRemoved += segment.rows;
  }
  const oldLogs = new Set(from.deltaLogs.map((log) => log.id));
  const newLogs = new Set(to.deltaLogs.map((log) => log.id));
  const added = to.deltaLogs.filter((log) => !oldLogs.has(log.id));
  return {
    partitions: [...partitions.values()].sort((a, b) => (a.partition < b.partition ? -1 : 1)),
    segmentsShared: to.segments.filter((segment) => before.has(segment.prefix)).length,
    deltaLogsAdded: added.length,
    deltaLogsRemoved: from.deltaLogs.filter((log) => !newLogs.has(log.id)).length,
    deletesAdded: added.reduce((sum, log) => sum + log.rows, 0),
  };
}

/** Several snapshots refer to it. */
const MANY = -1;
/** Units between two looks at the clock. */
const STRETCH = 1_024;

/** Bytes of each snapshot that nothing else refers to, and of the rest. */
export async function snapshotBytes(references: References, turns: Turns): Promise<ReadonlyMap<number, KeptBytes>> {
  const owners = new NumberTable();
  for (const set of references.snapshots.values()) {
    const numbers = set.numbers();
    for (let at = 0; at < numbers.length; at++) {
      const number = numbers[at] as number;
      owners.set(number, owners.has(number) ? MANY : 1);
      if (at % STRETCH === 0 && turns.due) await turns.give();
    }
  }
  const sizes = new Map<number, KeptBytes>();
  for (const [id, set] of references.snapshots) {
    const numbers = set.numbers();
    let [exclusive, shared] = [0, 0];
    for (let at = 0; at < numbers.length; at++) {
      const number = numbers[at] as number;
      if (owners.get(number) === 1 && !references.live.has(number)) exclusive += set.bytesAt(at);
      else shared += set.bytesAt(at);
      if (at % STRETCH === 0 && turns.due) await turns.give();
    }
    sizes.set(id, { exclusive, shared });
  }
  return sizes;
}
