/**
 * Every key of the MetaStore. Numbers are zero-padded to 16 digits, so that key order is number order. `catalog/` changes only by the control
 * channel, each time together with catalog/applied.
 */
const pad = (id: number): string => id.toString().padStart(16, '0');

export const CATALOG = 'catalog/';

export const keys = {
  clusterIdentity: 'cluster/identity',
  /** Seed of the Ed25519 key that certificates are signed with. */
  certificateKey: 'cluster/certificate-key',
  /** There once the identity object was put into the bucket. */
  clusterBucket: 'cluster/bucket',
  leader: 'leader/datacoord',
  timestampLimit: 'clock/limit',
  idsNext: 'ids/next',
  controlEpoch: 'control/epoch',
  controlResult: (requestId: string) => `control/results/${requestId}`,
  controlResults: 'control/results/',

  applied: `${CATALOG}applied`,
  database: (id: number) => `${CATALOG}database/${pad(id)}`,
  collection: (id: number) => `${CATALOG}collection/${pad(id)}`,
  partition: (collection: number, id: number) => `${CATALOG}partition/${pad(collection)}/${pad(id)}`,
  partitions: (collection: number) => `${CATALOG}partition/${pad(collection)}/`,
  index: (collection: number, id: number) => `${CATALOG}index/${pad(collection)}/${pad(id)}`,
  indexes: (collection: number) => `${CATALOG}index/${pad(collection)}/`,
  alias: (database: number, alias: string) => `${CATALOG}alias/${pad(database)}/${alias}`,
  load: (collection: number) => `${CATALOG}load/${pad(collection)}`,

  segment: (collection: number, id: number) => `segment/${pad(collection)}/${pad(id)}`,
  segments: (collection: number) => `segment/${pad(collection)}/`,
  allSegments: 'segment/',
  delta: (collection: number, id: number) => `delta/${pad(collection)}/${pad(id)}`,
  deltas: (collection: number) => `delta/${pad(collection)}/`,
  allDeltas: 'delta/',
  segmentIndex: (collection: number, segment: number, index: number) => `segindex/${pad(collection)}/${pad(segment)}/${pad(index)}`,
  segmentIndexes: (collection: number) => `segindex/${pad(collection)}/`,
  allSegmentIndexes: 'segindex/',
  shard: (collection: number, shard: number) => `shard/${pad(collection)}/${pad(shard)}`,
  shards: (collection: number) => `shard/${pad(collection)}/`,
  allShards: 'shard/',

  channel: (channel: string) => `channel/${channel}`,
  channels: 'channel/',
  node: (role: string, id: string) => `node/${role}/${id}`,
  nodes: 'node/',

  group: (group: string) => `group/${group}`,
  groups: 'group/',
  prefix: (prefix: string) => `prefix/${prefix}`,
  prefixes: 'prefix/',

  snapshot: (collection: number, id: number) => `snapshot/${pad(collection)}/${pad(id)}`,
  snapshots: 'snapshot/',
  snapshotHealth: (snapshot: number) => `snapshothealth/${pad(snapshot)}`,
  snapshotHealths: 'snapshothealth/',
  pin: (snapshot: number, id: number) => `pin/${pad(snapshot)}/${pad(id)}`,
  pins: 'pin/',
  drill: (id: number) => `drill/${pad(id)}`,
  drills: 'drill/',
  restoreIntent: (job: number) => `restore/intent/${pad(job)}`,
  restoreIntents: 'restore/intent/',
  restoreJob: (job: number) => `restore/job/${pad(job)}`,
  restoreJobs: 'restore/job/',
  copyTask: (job: number, task: number) => `restore/task/${pad(job)}/${pad(task)}`,
  copyTasksOf: (job: number) => `restore/task/${pad(job)}/`,
  copyTasks: 'restore/task/',
  compactionTask: (task: number) => `compaction/task/${pad(task)}`,
  compactionTasks: 'compaction/task/',
  compactionJob: (job: number) => `compaction/job/${pad(job)}`,
  compactionJobs: 'compaction/job/',
} as const;

/** Object store paths. Keys never repeat: ids are never reused and a rewrite has a new generation. */
export const paths = {
  /** Says whose bucket it is. */
  identity: 'cluster/identity.json',
  segment: (collection: number, partition: number, segment: number, generation: string) =>
    `segments/${collection}/${partition}/${segment}/${generation}/`,
  delta: (collection: number, shard: number, log: number, generation: string) => `deltas/${collection}/${shard}/${log}-${generation}.arrow`,
  snapshotMetadata: (collection: number, snapshot: number) => `snapshots/${collection}/metadata/${snapshot}.json`,
  snapshotManifests: (collection: number, snapshot: number) => `snapshots/${collection}/manifests/${snapshot}/`,
} as const;
