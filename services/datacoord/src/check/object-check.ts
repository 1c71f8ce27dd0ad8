import { asCairnError, isRetriable, mapLimit } from '@cairn/base';
import type { ObjectStore } from '@cairn/objects';
import type { ObjectRef } from '@cairn/proto/cairn/meta';
import { type ExaminerPool, examineObject, ReadBuffers } from '@cairn/segment';
import { infosOf, whyNot } from './object-infos.ts';

/** Objects looked at at once; reading keeps this many in memory. */
const PARALLEL_HEADS = 32;
const PARALLEL_READS = 4;
/** Of buffers that wait for their next object. */
const KEPT_BUFFER_BYTES = 64 * 1024 * 1024;

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
  if (pool) {
    const buffers = new ReadBuffers(KEPT_BUFFER_BYTES);
    await mapLimit(all, PARALLEL_READS, async ({ object, rows, by }) => {
      try {
        await examineObject({ objects, pool, buffers }, object, rows);
      } catch (error) {
        if (isRetriable(error)) throw error;
        damage.push({ key: object.key, by, detail: asCairnError(error).message });
      }
    });
  } else {
    const keys = all.map(({ object }) => object.key);
    const found = await infosOf(objects, keys, PARALLEL_HEADS);
    for (const { object, by } of all) {
      const detail = whyNot(object, found.get(object.key));
      if (detail !== undefined) damage.push({ key: object.key, by, detail });
    }
  }
  return { damage, objects: all.length, bytes: all.reduce((sum, one) => sum + one.object.size, 0) };
}
