import { asCairnError, isRetriable, mapLimit } from '@cairn/base';
import type { ObjectStore } from '@cairn/objects';
import type { ObjectRef } from '@cairn/proto/cairn/meta';
import { type ExaminerPool, examineObject } from '@cairn/segment';

/** Objects looked at at once; reading keeps this many in memory. */
const PARALLEL_HEADS = 32;
const PARALLEL_READS = 4;

/** An object that something refers to; `rows`: what it must hold when it is read, absent where it is no table. */
export interface ReferredObject {
  readonly object: ObjectRef;
  readonly rows?: number;
  readonly by: string;
}

export interface ObjectDamage {
  readonly key: string;
  readonly by: string;
  readonly detail: string;
}

/**
 * That objects are what their references say: there, of that length; `deep`: read, with that checksum and number of rows. A key that is referred
 * to more than once is looked at once. A store that is away is an error, not damage.
 */
export async function checkObjects(
  objects: ObjectStore,
  referred: Iterable<ReferredObject>,
  /** Deep: reads the bytes. */
  pool: ExaminerPool | undefined,
): Promise<{ readonly damage: readonly ObjectDamage[]; readonly objects: number; readonly bytes: number }> {
  const byContent = new Map<string, ReferredObject>();
  for (const one of referred) byContent.set(`${one.object.key} ${one.object.size} ${one.object.crc32c}`, one);
  const damage: ObjectDamage[] = [];
  const all = [...byContent.values()];
  await mapLimit(all, pool ? PARALLEL_READS : PARALLEL_HEADS, async ({ object, rows, by }) => {
    try {
      if (pool) return await examineObject({ objects, pool }, object, rows);
      const detail = await whyNotThere(objects, object);
      if (detail !== undefined) damage.push({ key: object.key, by, detail });
    } catch (error) {
      if (isRetriable(error)) throw error;
      damage.push({ key: object.key, by, detail: asCairnError(error).message });
    }
  });
  return { damage, objects: all.length, bytes: all.reduce((sum, one) => sum + one.object.size, 0) };
}

/** Undefined: it is there with its length and tag. */
export async function whyNotThere(objects: ObjectStore, object: ObjectRef): Promise<string | undefined> {
  const found = await objects.head(object.key);
  if (!found) return `object not found: ${object.key}`;
  if (found.size !== object.size) return `${found.size} bytes, recorded ${object.size}`;
  if (object.etag !== '' && found.etag !== '' && found.etag !== object.etag) return `tag ${found.etag}, recorded ${object.etag}`;
  return undefined;
}
