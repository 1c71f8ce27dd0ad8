import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { CairnError, type Config, type Logger, type Runtime } from '@cairn/base';
import { DirectoryLock, LmdbMetaStore, MemoryMetaStore, type MetaStore } from '@cairn/meta';
import { DiskObjectStore, MemoryObjectStore, type ObjectStore } from '@cairn/objects';
import { type JetStreamAccess, LmdbWalStore, MemoryWalStore, type WalStore } from '@cairn/wal';

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
      const { endpoints, username, password, connectTimeoutMs } = etcd;
      const tls = await tlsOf(etcd.tls, 'meta.etcd.tls');
      const access = { username, password, ...(tls ? { tls } : {}) };
      return new EtcdMetaStore({ endpoints, ...access, prefix, callTimeoutMs, connectTimeoutMs }, runtime, logger);
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
      const access = await natsAccess(nats);
      return JetStreamWalStore.open({
        servers,
        monitors,
        replicas,
        maxRecordBytes,
        access,
        runtime,
        logger,
        ...(signal ? { signal } : {}),
      });
    }
    case 'lmdb':
      return new LmdbWalStore({ path: join(config.dataDir, 'wal'), logger, maxRecordBytes });
    case 'memory':
      return new MemoryWalStore({ maxRecordBytes });
  }
}

interface TlsFiles {
  readonly caFile: string;
  readonly certFile: string;
  readonly keyFile: string;
}

/** PEM texts of the files; undefined without an authority. InvalidParameter names the setting whose file cannot be read, or is missing. */
async function tlsOf(files: TlsFiles, path: string): Promise<{ ca: string; cert?: string; key?: string } | undefined> {
  const { caFile, certFile, keyFile } = files;
  if ((certFile === '') !== (keyFile === ''))
    throw new CairnError(
      'InvalidParameter',
      `${path}.certFile and ${path}.keyFile go together: ${certFile === '' ? 'certFile' : 'keyFile'} is missing`,
    );
  if (caFile === '') {
    if (certFile !== '') throw new CairnError('InvalidParameter', `${path}.certFile is given without ${path}.caFile`);
    return undefined;
  }
  const ca = await fileOf(caFile, `${path}.caFile`);
  if (certFile === '') return { ca };
  return { ca, cert: await fileOf(certFile, `${path}.certFile`), key: await fileOf(keyFile, `${path}.keyFile`) };
}

async function fileOf(file: string, setting: string): Promise<string> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    throw new CairnError('InvalidParameter', `${setting}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
  }
}

/** What NATS asks for to let us in. */
async function natsAccess(nats: Config['wal']['nats']): Promise<JetStreamAccess> {
  const { username, password, token, credentialsFile } = nats;
  const tls = await tlsOf(nats.tls, 'wal.nats.tls');
  if ([username, token, credentialsFile].filter((given) => given !== '').length > 1)
    throw new CairnError('InvalidParameter', 'wal.nats: one of username, token and credentialsFile, not several');
  return {
    ...(tls ? { tls } : {}),
    ...(username === '' ? {} : { user: { name: username, password } }),
    ...(token === '' ? {} : { token }),
    ...(credentialsFile === '' ? {} : { credentials: await fileOf(credentialsFile, 'wal.nats.credentialsFile') }),
  };
}
