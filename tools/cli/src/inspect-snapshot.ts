import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { asCairnError, type Config, loadConfig, type Runtime, SystemRuntime } from '@cairn/base';
import { DiskObjectStore, type ObjectStore } from '@cairn/objects';
import { readSnapshot, type SnapshotBundle } from '@cairn/segment';
import type { Command } from 'commander';
import { bytes, type Format, print, printOne } from './output.ts';
import { CommandError, EXIT } from './session.ts';

const LAYOUT = /^(.*?)(snapshots\/\d+\/metadata\/\d+\.json)$/;

/** Where a snapshot's metadata lies: root of the store and key below it. */
interface Place {
  readonly root: string;
  readonly key: string;
}

function split(path: string): Place {
  const found = LAYOUT.exec(path);
  if (!found) throw new CommandError(`'${path}' is no metadata of a snapshot: …/snapshots/<collection>/metadata/<id>.json`, EXIT.usage);
  const [, root = '', key = ''] = found;
  return { root, key };
}

async function open(uri: string, config: Config, runtime: Runtime): Promise<{ readonly objects: ObjectStore; readonly key: string }> {
  const s3 = /^s3:\/\/([^/]+)\/(.*)$/.exec(uri);
  if (s3) {
    const [, bucket = '', path = ''] = s3;
    const { root, key } = split(path);
    // Its client is large: only those who need it pay.
    const { S3ObjectStore } = await import('@cairn/objects/s3');
    return { objects: new S3ObjectStore({ ...config.objects.s3, bucket, root: root.replace(/\/$/, '') }, runtime), key };
  }
  const { root, key } = split(resolve(uri.startsWith('file:') ? fileURLToPath(uri) : uri));
  return { objects: new DiskObjectStore(root, runtime), key };
}

/** Reads metadata and manifests, all checksums compared, and prints what they say. Errors name the object; exit code 1. */
export async function inspectSnapshot(
  uri: string,
  options: { readonly config?: string; readonly set: readonly string[]; readonly segments?: boolean },
  command: Command,
): Promise<void> {
  const config = loadConfig({ ...(options.config ? { file: options.config } : {}), env: process.env, sets: [...options.set] });
  const format = command.optsWithGlobals<{ output: Format }>().output;
  const { objects, key } = await open(uri, config, new SystemRuntime());
  try {
    printBundle(format, await readSnapshot(objects, key, { withSegments: true }), options.segments === true);
  } catch (error) {
    throw error instanceof CommandError ? error : new CommandError(asCairnError(error).message);
  } finally {
    await objects.close();
  }
}

function printBundle(format: Format, bundle: SnapshotBundle, withSegments: boolean): void {
  const { record, definition } = bundle;
  const names = new Map(definition.partitions.map((partition) => [partition.id, partition.name]));
  const summary = {
    snapshot: record.name,
    id: record.id,
    description: record.description,
    database: definition.databaseName,
    collection: definition.collection?.name ?? '',
    collection_id: record.collectionId,
    created: new Date(record.createdMs).toISOString(),
    timestamp: record.ts,
    format_version: bundle.formatVersion,
    cluster: bundle.clusterId,
    partitions: definition.partitions.map((partition) => partition.name),
    indexes: definition.indexes.map((index) => index.name),
    rows: bundle.rows,
    bytes: format === 'table' ? bytes(bundle.bytes) : bundle.bytes,
    segments: bundle.segmentCount,
    delta_logs: bundle.deltaLogs.length,
    manifests: bundle.manifestObjects.map((object) => object.key),
  };
  const segments = bundle.segments.map((segment) => ({
    segment: segment.id,
    partition: names.get(segment.partitionId) ?? `${segment.partitionId}`,
    shard: segment.shard,
    rows: segment.rows,
    bytes: segment.objects.reduce((sum, object) => sum + object.size, 0),
    objects: segment.objects.length,
    prefix: segment.prefix,
  }));
  if (format !== 'table') {
    printOne(format, withSegments ? { ...summary, segment_list: JSON.stringify(segments) } : summary);
    return;
  }
  printOne('table', summary);
  if (!withSegments) return;
  console.log('');
  print('table', segments);
}
