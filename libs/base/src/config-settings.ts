import { bytes, type ConfigOf, choice, flag, integer, list, milliseconds, type SettingTree, secret, text } from './config-setting.ts';

const KiB = 2 ** 10;
const MiB = 2 ** 20;
const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const PORT = 65_535;

/** Files are read once, at start. */
const tls = (server: string) => ({
  caFile: text('', `PEM file of the authority that signed the certificates of ${server}; given: connections are encrypted`),
  certFile: text('', `PEM file of the client certificate shown to ${server}; empty: none`),
  keyFile: text('', 'PEM file of its key'),
});

/** Every setting of the house, with its unit in the name, its default and its purpose. The defaults are those of one embedded process. */
export const settings = {
  dataDir: text('./data', 'directory of the embedded stores and of caches'),
  log: { level: choice(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'], 'info', 'least level that is logged') },
  proxy: {
    host: text('127.0.0.1', 'address of the public gRPC port'),
    port: integer(19530, 'public gRPC port; 0 takes a free one', 0, PORT),
    requestTimeoutMs: milliseconds(60 * SECOND, 'deadline of a request that brings none', 1),
    maxConcurrentRequests: integer(1024, 'requests under way in one proxy; further ones get "too many requests"', 1),
  },
  http: {
    host: text('127.0.0.1', 'address of health and metrics'),
    port: integer(9091, 'port of health and metrics; 0 takes a free one', 0, PORT),
  },
  node: {
    id: text('', 'name of this process among the nodes; empty: random'),
    host: text('127.0.0.1', 'address where this node listens for other nodes'),
    port: integer(0, 'port where this node listens for other nodes; 0 takes a free one', 0, PORT),
    advertiseHost: text('', 'address under which other nodes reach this one; empty: node.host'),
    leaseTtlMs: milliseconds(3 * SECOND, 'life of the node key without keep-alive', 2 * SECOND, 10 * MINUTE),
    slots: integer(4, 'tasks a datanode runs at once', 1, 1024),
  },
  rpc: {
    maxMessageBytes: bytes(256 * MiB, 'largest message the public port receives', 1 * MiB, 2 ** 31 - 1),
    callTimeoutMs: milliseconds(30 * SECOND, 'deadline of a call between services that brings none', 1),
    connectTimeoutMs: milliseconds(3 * SECOND, 'a connection to another node that does not stand by then is given up', 100, 1 * MINUTE),
    keepAliveMs: milliseconds(5 * SECOND, 'pause between two pings of a connection to another node', 1 * SECOND, 10 * MINUTE),
    keepAliveTimeoutMs: milliseconds(5 * SECOND, 'a ping not answered by then ends the connection', 100, 1 * MINUTE),
  },
  meta: {
    kind: choice(['lmdb', 'etcd', 'memory'], 'lmdb', 'where the catalog lives'),
    prefix: text('cairn/', 'put before every key (etcd)'),
    callTimeoutMs: milliseconds(5 * SECOND, 'deadline of one call of the store', 1),
    etcd: {
      endpoints: list(['127.0.0.1:2379'], 'addresses of the members, host:port'),
      connectTimeoutMs: milliseconds(2 * SECOND, 'a member that has not taken a connection by then is passed over', 100, 1 * MINUTE),
      username: text('', 'user of etcd; empty: none, or the name in the client certificate'),
      password: secret('', 'password of the user'),
      tls: tls('etcd'),
    },
  },
  objects: {
    kind: choice(['disk', 's3', 'memory'], 'disk', 'where segments and snapshots live'),
    s3: {
      endpoint: text('', 'URL of the service; empty: that of AWS for the region'),
      region: text('us-east-1', 'region of the bucket'),
      bucket: text('cairn', 'name of the bucket'),
      root: text('files', 'put before every key of the bucket'),
      accessKeyId: text('', 'access key; empty: the default credential chain'),
      secretAccessKey: secret('', 'secret of the access key'),
      pathStyle: flag(true, 'bucket in the path of a URL, not in its host name'),
      multipartCopyBytes: bytes(5 * 1024 * MiB, 'copies above it go by parts', 5 * MiB, 5 * 1024 * MiB),
    },
  },
  wal: {
    kind: choice(['lmdb', 'jetstream', 'memory'], 'lmdb', 'where the write-ahead log lives'),
    channels: integer(4, 'physical channels of a new cluster', 1, 64),
    maxRecordBytes: bytes(960 * KiB, 'largest record with headers; a larger write becomes a batch', 16 * KiB, 64 * MiB),
    maxReplayBytes: bytes(64_000_000, 'unflushed log of a channel stays below, so that take-over time is bounded', 1 * MiB),
    nats: {
      servers: list(['127.0.0.1:4222'], 'addresses of the servers, host:port'),
      monitors: list([], 'monitoring URLs of the servers, by which their sync interval is checked at start'),
      replicas: integer(1, 'copies of each stream; 3 for high availability', 1, 5),
      username: text('', 'user of NATS; empty: none'),
      password: secret('', 'password of the user'),
      token: secret('', 'token, where the servers ask for one instead of a user'),
      credentialsFile: text('', 'file with JWT and seed (.creds), where the servers ask for these'),
      tls: tls('NATS'),
    },
  },
  segment: {
    maxBytes: bytes(128 * MiB, 'a growing segment is sealed at this size', 64 * KiB),
    maxRows: integer(2_000_000, 'a growing segment is sealed at this many rows', 1),
    maxAgeMs: milliseconds(10 * MINUTE, 'a growing segment is sealed at this age', 1 * SECOND),
  },
  flush: {
    checkIntervalMs: milliseconds(1 * SECOND, 'how often size and age of growing segments are looked at', 10),
    concurrency: integer(2, 'shards of a node flushed at once', 1, 64),
    timeoutMs: milliseconds(2 * MINUTE, 'longest wait of a Flush request', 1),
  },
  streaming: {
    maxGrowingBytes: bytes(
      1024 * MiB,
      'rows in the memory of a node, not flushed or not served by a datanode yet; above it writes get "rate limited"',
      1 * MiB,
    ),
    maxWaitingBytes: bytes(128 * MiB, 'writes of a channel that are not durable yet; above it writes get "rate limited"', 64 * KiB),
    maxWaitingWrites: integer(4096, 'writes of a channel that are not durable yet, in number', 1),
    repeatWindowMs: milliseconds(10 * MINUTE, 'how long at least a repeated request id gets the answer of the first', 0),
    maxRepeats: integer(200_000, 'request ids of a shard remembered below its checkpoint', 1),
    repeatLogBytes: bytes(16 * MiB, 'flushed log of a channel kept within the repeat window, so that a new owner knows its request ids', 0),
    loadTimeoutMs: milliseconds(2 * MINUTE, 'longest wait for a datanode to load segments before it is tried again', 1),
  },
  index: {
    workers: integer(0, 'worker threads for vector work; 0: as many as cores', 0, 1024),
    buildConcurrency: integer(1, 'index builds of a datanode at once', 1, 64),
    cacheBytes: bytes(2048 * MiB, 'disk kept for downloaded segment files', 16 * MiB),
    vectorBytes: bytes(
      64 * MiB,
      'vectors of indexed segments kept in memory by a datanode; hits in others are scored out of their files',
      0,
    ),
  },
  limits: {
    maxTopK: integer(16_384, 'limit + offset of a search or query', 1),
    maxNq: integer(16_384, 'vectors of one search', 1),
    maxInsertBytes: bytes(256 * MiB, 'one insert or upsert request', 1 * KiB),
    maxResultBytes: bytes(256 * MiB, 'result of one search or query', 1 * KiB),
    maxNameLength: integer(255, 'names of collections, fields, partitions, aliases, indexes', 1),
    maxDim: integer(32_768, 'dimension of a vector', 1),
    maxFields: integer(64, 'fields of a collection', 1),
    maxVectorFields: integer(10, 'vector fields of a collection', 1),
    maxShards: integer(16, 'shards of a collection', 1),
    maxPartitions: integer(1024, 'partitions of a collection', 1),
    maxCollections: integer(65_536, 'collections of all databases', 1),
    maxDatabases: integer(64, 'databases', 1),
    maxVarCharLength: integer(65_535, 'bytes of a varchar', 1),
    maxArrayCapacity: integer(4096, 'elements of an array', 1),
    maxJsonBytes: bytes(64 * KiB, 'one JSON value', 1),
    maxExpressionBytes: bytes(1 * MiB, 'one filter', 1),
  },
  quota: {
    insertBytesPerSecond: bytes(0, 'inserts and upserts of a proxy, bytes a second; 0: no limit'),
    collectionInsertBytesPerSecond: bytes(0, 'the same of each collection'),
    deleteBytesPerSecond: bytes(0, 'deletes of a proxy, bytes of filters a second; 0: no limit'),
    searchVectorsPerSecond: integer(0, 'query vectors of searches of a proxy a second; 0: no limit'),
    collectionSearchVectorsPerSecond: integer(0, 'the same of each collection'),
    queriesPerSecond: integer(0, 'queries of a proxy a second; 0: no limit'),
    collectionQueriesPerSecond: integer(0, 'the same of each collection'),
    flushesPerSecond: integer(0, 'flushes of collections of a proxy a second; 0: no limit'),
    ddlPerSecond: integer(0, 'changes of the catalog of a proxy a second; 0: no limit'),
    denyWriting: flag(false, 'refuse every write with "force deny"'),
    denyReading: flag(false, 'refuse every search and query with "force deny"'),
  },
  control: { resultRetentionMs: milliseconds(1 * HOUR, 'how long the answer to a catalog change is kept for repeats', 1 * SECOND) },
  snapshot: {
    timeoutMs: milliseconds(120 * SECOND, 'a snapshot that is not committed by then fails', 1 * SECOND),
    onCollectionDrop: choice(['cascade', 'retain'], 'cascade', 'what becomes of unpinned snapshots when their collection is dropped'),
    manifestConcurrency: integer(8, 'manifest files written at once', 1, 256),
  },
  restore: {
    mode: choice(['copy', 'reference'], 'copy', 'copy the objects, or refer to those of the snapshot'),
    maxJobs: integer(32, 'restore jobs at once; more are refused with a code that clients try again', 1),
    maxJobsPerCollection: integer(16, 'the same of snapshots of one collection', 1),
    jobTimeoutMs: milliseconds(6 * HOUR, 'a job that is not completed by then fails', 1 * SECOND),
    jobRetentionMs: milliseconds(3 * HOUR, 'how long an ended job is listed', 1 * SECOND),
    copyConcurrency: integer(32, 'objects a datanode copies at once', 1, 1024),
  },
  compaction: {
    enabled: flag(true, 'merge small segments and purge deleted rows without being asked'),
    intervalMs: milliseconds(10 * SECOND, 'how often segments that could be compacted are looked for', 10),
    targetBytes: bytes(256 * MiB, 'bytes of the segments that one compaction takes; it needs about as much memory in a datanode', 64 * KiB),
    minSegments: integer(4, 'segments of about one size that are merged at least', 2, 30),
    maxSegments: integer(30, 'segments that one compaction takes at most', 2, 30),
    deletedPercent: integer(20, 'a segment with this share of deleted rows is rewritten without them', 1, 100),
    retentionMs: milliseconds(
      10 * MINUTE,
      'rows deleted within this time stay for reads that began before; not when compaction is asked for',
      0,
    ),
    ttlGraceMs: milliseconds(24 * HOUR, 'rows that outlived collection.ttl.seconds stay, hidden, for this long before they go', 0),
    tasksPerNode: integer(1, 'compactions of a datanode at once', 1, 64),
    jobRetentionMs: milliseconds(3 * HOUR, 'how long an ended compaction that was asked for is remembered', 1 * SECOND),
  },
  gc: {
    intervalMs: milliseconds(1 * MINUTE, 'how often dead prefixes are looked for', 100),
    graceMs: milliseconds(10 * MINUTE, 'time between recording a prefix as dead and deleting it', 0),
    orphanMs: milliseconds(15 * MINUTE, 'a prefix that no record names is left to its writer for this long, at least graceMs', 1 * SECOND),
  },
  scrub: {
    intervalMs: milliseconds(7 * 24 * HOUR, 'how often every snapshot is read and compared in the background; 0: never', 0),
    bytesPerSecond: bytes(32 * MiB, 'what the background passes over snapshots read at most in a second', 64 * KiB),
  },
  telemetry: {
    otlpEndpoint: text('', 'URL that traces are sent to; empty: nowhere'),
    samplePercent: integer(100, 'traces kept, in percent', 0, 100),
  },
} as const satisfies SettingTree;

/** The typed configuration; deeply frozen. */
export type Config = ConfigOf<typeof settings>;
