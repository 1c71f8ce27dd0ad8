import { join } from 'node:path';
import type { Config, Logger, Runtime } from '@cairn/base';
import { DirectoryLock, LmdbMetaStore, MemoryMetaStore, type MetaStore } from '@cairn/meta';
import { DiskObjectStore, MemoryObjectStore, type ObjectStore } from '@cairn/objects';
import { LmdbWalStore, MemoryWalStore, type WalStore } from '@cairn/wal';

export interface Stores {
  readonly meta: MetaStore;
  readonly objects: ObjectStore;
  readonly wal: WalStore;
  /** Closes all three; those that use them have stopped. */
  close(): Promise<void>;
}

/**
 * Opens the stores that the configuration names; embedded ones lie in `dataDir`, which no other living
 * process may have (StoreUnavailable names it). Servers need not answer yet: ping tells. Only JetStream's client
 * waits for its first connection (its log says so), until the signal aborts.
 */
export async function openStores(config: Config, runtime: Runtime, logger: Logger, signal?: AbortSignal): Promise<Stores> {
  const opened: { close(): Promise<void> }[] = [];
  const keep = <T extends { close(): Promise<void> }>(store: T): T => {
    opened.push(store);
    return store;
  };
  const close = async (): Promise<void> => {
    for (let store = opened.pop(); store; store = opened.pop()) await store.close();
  };
  try {
    if (config.meta.kind === 'lmdb' || config.wal.kind === 'lmdb') {
      const lock = DirectoryLock.take(config.dataDir);
      keep({ close: () => lock.release() });
    }
    const meta = keep(await openMeta(config, runtime, logger));
    const objects = keep(await openObjects(config, runtime));
    const wal = keep(await openWal(config, runtime, logger, signal));
    return { meta, objects, wal, close };
  } catch (error) {
    await close();
    throw error;
  }
}

async function openMeta(config: Config, runtime: Runtime, logger: Logger): Promise<MetaStore> {
  const { kind, prefix, callTimeoutMs, etcd } = config.meta;
  switch (kind) {
    case 'etcd': {
      // Clients of servers are large: embedded processes do without.
      const { EtcdMetaStore } = await import('@cairn/meta/etcd');
      return new EtcdMetaStore({ endpoints: etcd.endpoints, prefix, callTimeoutMs }, runtime, logger);
    }
    case 'lmdb':
      return LmdbMetaStore.open(join(config.dataDir, 'meta'), runtime);
    case 'memory':
      return new MemoryMetaStore(runtime);
  }
}

async function openObjects(config: Config, runtime: Runtime): Promise<ObjectStore> {
  switch (config.objects.kind) {
    case 's3': {
      const { S3ObjectStore } = await import('@cairn/objects/s3');
      return new S3ObjectStore(config.objects.s3, runtime);
    }
    case 'disk':
      return new DiskObjectStore(join(config.dataDir, 'objects'), runtime);
    case 'memory':
      return new MemoryObjectStore(runtime);
  }
}

async function openWal(config: Config, runtime: Runtime, logger: Logger, signal: AbortSignal | undefined): Promise<WalStore> {
  const { kind, maxRecordBytes, nats } = config.wal;
  switch (kind) {
    case 'jetstream': {
      const { JetStreamWalStore } = await import('@cairn/wal/jetstream');
      const { servers, monitors, replicas } = nats;
      return JetStreamWalStore.open({ servers, monitors, replicas, maxRecordBytes, runtime, logger, ...(signal ? { signal } : {}) });
    }
    case 'lmdb':
      return new LmdbWalStore({ path: join(config.dataDir, 'wal'), logger, maxRecordBytes });
    case 'memory':
      return new MemoryWalStore({ maxRecordBytes });
  }
}
