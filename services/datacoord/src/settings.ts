/** Limits and periods of the coordinator. Every one has a unit in its name; defaults are `defaultSettings`. */
export interface DataCoordSettings {
  /** Lease of the leader's key: a dead leader is replaced after at most this. */
  readonly leaseTtlMs: number;
  /** Data channels that exist at least (`dml_0`, `dml_1`, …). */
  readonly channels: number;
  /** When no channel has a living owner: how long after the first streaming node appeared others may still come before channels are given out. */
  readonly assignSettleMs: number;
  /** Channels are moved between living nodes only when the streaming nodes have been the same for this long. */
  readonly balanceSettleMs: number;
  /** How long the answer to a catalog change is kept for a retry under the same request id. */
  readonly resultRetentionMs: number;
  /** Answers kept at most; the oldest go first. */
  readonly maxResults: number;
  /** Catalog changes that may wait to be applied; more are refused with TooManyRequests. */
  readonly maxPendingChanges: number;
  /** Time a snapshot may take from its T to COMMITTED. */
  readonly snapshotTimeoutMs: number;
  /** What happens to the snapshots of a dropped collection. */
  readonly snapshotOnCollectionDrop: 'cascade' | 'retain';
  /** Manifest files of one snapshot written at once. */
  readonly manifestConcurrency: number;
  /** Restore jobs at once in all; more are refused with TooManyRequests. */
  readonly restoreMaxJobs: number;
  /** The same of snapshots of one collection. */
  readonly restoreMaxJobsPerCollection: number;
  readonly restoreJobTimeoutMs: number;
  readonly restoreJobRetentionMs: number;
  readonly restoreMode: string;
  /** Bytes that one copy task carries at most, a larger segment alone. */
  readonly copyTaskBytes: number;
  /** Segments and delta logs in one copy task at most. */
  readonly copyTaskItems: number;
  /** Index builds, and of each restore its tasks, running at one datanode at most. */
  readonly tasksPerNode: number;
  /** Copy tasks of all restores running at one datanode at most. */
  readonly copyTasksPerNode: number;
  /** Times a task is tried on nodes before its failure is taken for permanent. */
  readonly taskAttempts: number;
  /** Sealed segments with fewer rows are searched exactly and get no index object. */
  readonly indexMinRows: number;
  /** Between the record that a prefix is dead and the deletion of its objects. */
  readonly gcGraceMs: number;
  /** Between rounds of garbage collection. */
  readonly gcIntervalMs: number;
  /** A prefix that no record names is left to its writer for this long: longer than any flush or task takes to commit. */
  readonly gcOrphanMs: number;
  /** Every snapshot is read and compared this often, in the background; 0: never. */
  readonly scrubIntervalMs: number;
  /** Bytes a second that the background passes over snapshots read at most. */
  readonly scrubBytesPerSecond: number;
  /** Between looks for a snapshot whose turn it is. */
  readonly scrubPeriodMs: number;
  /** Period of the sweepers (results, pins, jobs, dead prefixes). */
  readonly sweepPeriodMs: number;
  /** Time a call to another service may take, tasks excepted. */
  readonly callTimeoutMs: number;
  /** Whether segments are compacted without being asked. */
  readonly compactionEnabled: boolean;
  /** Between two looks at what could be compacted. */
  readonly compactionIntervalMs: number;
  /** Bytes of the segments that one compaction takes at most, a larger segment alone. */
  readonly compactionTargetBytes: number;
  /** Segments of about one size that are merged at least; further ones wait for company. */
  readonly compactionMinSegments: number;
  /** Segments that one compaction takes at most; its commit is one transaction. */
  readonly compactionMaxSegments: number;
  /** A segment with more deleted rows, in percent, is rewritten without them. */
  readonly compactionDeletedPercent: number;
  /** Rows deleted within this time stay for reads that began before (iterators); a compaction that was asked for does not wait. */
  readonly compactionRetentionMs: number;
  /** Rows that outlived their collection's time to live are purged so much later; until then a longer time to live brings them back. */
  readonly compactionTtlGraceMs: number;
  readonly compactionTasksPerNode: number;
  /** After a failure the segments of that partition of that shard are let be for this long, unless somebody asks. */
  readonly compactionPauseMs: number;
  /** How long an ended compaction that was asked for is remembered. */
  readonly compactionJobRetentionMs: number;
  /** A delta log that no segment needs any more is kept this long after the last segment that did: whoever still serves that one has gone on. */
  readonly compactionDeltaKeepMs: number;
  readonly clusterId: string;
}

export const defaultSettings: DataCoordSettings = {
  leaseTtlMs: 3_000,
  channels: 4,
  assignSettleMs: 2_000,
  balanceSettleMs: 5_000,
  resultRetentionMs: 600_000,
  maxResults: 100_000,
  maxPendingChanges: 1_000,
  snapshotTimeoutMs: 120_000,
  snapshotOnCollectionDrop: 'cascade',
  manifestConcurrency: 8,
  restoreMaxJobs: 32,
  restoreMaxJobsPerCollection: 16,
  restoreJobTimeoutMs: 3_600_000,
  restoreJobRetentionMs: 3 * 3_600_000,
  restoreMode: 'copy',
  copyTaskBytes: 256 * 1024 * 1024,
  copyTaskItems: 16,
  tasksPerNode: 2,
  copyTasksPerNode: 32,
  taskAttempts: 8,
  indexMinRows: 1_024,
  gcGraceMs: 60_000,
  gcIntervalMs: 60_000,
  gcOrphanMs: 900_000,
  scrubIntervalMs: 7 * 24 * 3_600_000,
  scrubBytesPerSecond: 32 * 1024 * 1024,
  scrubPeriodMs: 10_000,
  sweepPeriodMs: 5_000,
  callTimeoutMs: 15_000,
  compactionEnabled: true,
  compactionIntervalMs: 10_000,
  compactionTargetBytes: 256 * 1024 * 1024,
  compactionMinSegments: 4,
  compactionMaxSegments: 30,
  compactionDeletedPercent: 20,
  compactionRetentionMs: 600_000,
  compactionTtlGraceMs: 24 * 3_600_000,
  compactionTasksPerNode: 1,
  compactionPauseMs: 60_000,
  compactionJobRetentionMs: 3 * 3_600_000,
  compactionDeltaKeepMs: 900_000,
  clusterId: '',
};
