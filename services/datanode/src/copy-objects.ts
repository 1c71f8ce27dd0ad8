import { CairnError, checksum, mapLimit, type Runtime, retry } from '@cairn/base';
import type { ObjectInfo, ObjectStore } from '@cairn/objects';
import type { ObjectRef } from '@cairn/proto/cairn/meta';
import type { CopyObject, CopyTask } from '@cairn/proto/cairn/services';
import { counter } from '@cairn/telemetry';

export interface CopyParts {
  readonly objects: ObjectStore;
  readonly runtime: Runtime;
  /** Bounds the copies of the whole node at once. */
  readonly lanes: { run<T>(bytes: number, copy: () => Promise<T>): Promise<T> };
  readonly concurrency: number;
}

const retries = counter('cairn_restore_copy_retries', { description: 'Copies of objects that were tried once more', unit: '{copy}' });
const RETRY = { attempts: 6, firstDelayMs: 200, maxDelayMs: 5000, onRetry: () => retries.add(1) };
/** Read at once where only reading proves a copy. */
const RANGE_BYTES = 8 << 20;

/**
 * Copies every object inside the store and proves each: the source has the recorded tag when it is copied, and the result has the same, or the
 * same checksum. Answers the copies in the order asked. Repeating it is safe: keys name their content. Errors name the object.
 */
export async function copyObjects(
  parts: CopyParts,
  task: CopyTask,
  onCopied: (bytes: number) => void,
  signal: AbortSignal,
): Promise<ObjectRef[]> {
  return mapLimit(task.objects, parts.concurrency, (object) =>
    parts.lanes.run(object.source?.size ?? 0, async () => {
      const copied = await retry(parts.runtime, RETRY, () => copyOne(parts, object, signal), signal);
      onCopied(copied.size);
      return copied;
    }),
  );
}

async function copyOne({ objects }: CopyParts, { source, targetKey }: CopyObject, signal: AbortSignal): Promise<ObjectRef> {
  if (!source) throw new CairnError('InvalidParameter', `copy to ${targetKey} names no source`);
  const ifMatch = source.etag === '' ? {} : { ifMatch: source.etag };
  const copied = await objects.copy(source.key, targetKey, { size: source.size, signal, ...ifMatch });
  const same = copied.size === source.size && source.etag !== '' && copied.etag === source.etag;
  if (!same) await prove(objects, source, targetKey, signal);
  return { ...source, key: targetKey, etag: copied.etag };
}

/** For copies whose tag is another (made in parts, or encrypted): what the store says of the result, else the bytes themselves. */
async function prove(objects: ObjectStore, source: ObjectRef, key: string, signal: AbortSignal): Promise<void> {
  const found = await objects.head(key);
  if (!found) throw new CairnError('ObjectNotFound', `object not found: ${key} in ${objects.uri}, just copied from ${source.key}`);
  const crc32c = found.size === source.size ? (found.crc32c ?? (await checksumOf(objects, found, signal))) : undefined;
  if (crc32c === source.crc32c) return;
  const why =
    crc32c === undefined ? `${found.size} bytes, recorded were ${source.size}` : `CRC-32C ${crc32c}, recorded was ${source.crc32c}`;
  throw new CairnError('ObjectDamaged', `object damaged: ${source.key} in ${objects.uri}; its copy ${key} has ${why}`);
}

export async function checksumOf(objects: ObjectStore, { key, size }: ObjectInfo, signal: AbortSignal): Promise<number> {
  let crc32c = 0;
  for (let at = 0; at < size; at += RANGE_BYTES) crc32c = checksum(await objects.getRange(key, at, RANGE_BYTES, signal), crc32c);
  return crc32c;
}
