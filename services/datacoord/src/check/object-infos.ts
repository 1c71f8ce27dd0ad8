import { mapLimit } from '@cairn/base';
import type { ObjectInfo, ObjectStore } from '@cairn/objects';
import type { ObjectRef } from '@cairn/proto/cairn/meta';

/** Keys asked for one by one before the next look whether a list would tell more of them at once. */
const HEADS_BETWEEN_LISTS = 128;
/** A page that tells of fewer is worse than asking for each. */
const WORTH_A_PAGE = 16;

/** Stores whose lists were seen to have no tags (a disk's): they are not listed again. */
const withoutTags = new WeakSet<ObjectStore>();

/**
 * What the store says of these objects; absent: not there. Where many of them lie side by side a page of a list tells of a thousand in one call; a list
 * that has no tags (a disk's) tells nothing, and each object is asked for.
 */
export async function infosOf(objects: ObjectStore, keys: Iterable<string>, parallel: number): Promise<ReadonlyMap<string, ObjectInfo>> {
  const wanted = [...new Set(keys)].sort();
  const infos = new Map<string, ObjectInfo>();
  const ask = (some: readonly string[]) =>
    mapLimit(some, parallel, async (key) => {
      const info = await objects.head(key);
      if (info) infos.set(key, info);
    });
  let at = 0;
  let listing = !withoutTags.has(objects);
  while (at < wanted.length) {
    if (listing && wanted.length - at > WORTH_A_PAGE) {
      const first = wanted[at] ?? '';
      await ask([first]);
      at++;
      const { page, end, listed } = await pageAfter(objects, first);
      let told = at;
      while (told < wanted.length && (end === undefined || (wanted[told] ?? '') <= end) && (wanted[told] ?? '').startsWith(folderOf(first)))
        told++;
      if (page.size > 0 && told - at >= WORTH_A_PAGE) {
        const missed = wanted.slice(at, told).filter((key) => !page.has(key));
        for (const key of wanted.slice(at, told)) {
          const info = page.get(key);
          if (info) infos.set(key, info);
        }
        // A list is believed when it says that something is there, not when it says that it is not.
        await ask(missed);
        at = told;
        continue;
      }
      listing = page.size > 0 || listed === 0;
      if (!listing) withoutTags.add(objects);
    }
    const some = wanted.slice(at, at + HEADS_BETWEEN_LISTS);
    await ask(some);
    at += some.length;
  }
  return infos;
}

/** The kind of object: `segments/`, `deltas/`, `snapshots/`. */
function folderOf(key: string): string {
  return key.slice(0, key.indexOf('/') + 1);
}

/** Objects with tags after a key, and the last key that the page tells of; no end: it tells of all that follow. */
async function pageAfter(
  objects: ObjectStore,
  after: string,
): Promise<{ readonly page: ReadonlyMap<string, ObjectInfo>; readonly end: string | undefined; readonly listed: number }> {
  const { objects: listed, next } = await objects.list(folderOf(after), { after });
  const page = new Map(listed.filter((info) => info.etag !== '').map((info) => [info.key, info]));
  return { page, end: next === undefined ? undefined : listed.at(-1)?.key, listed: listed.length };
}

/** Why an object is not as its reference says; undefined: it is. */
export function whyNot({ key, size, etag }: ObjectRef, found: ObjectInfo | undefined): string | undefined {
  if (!found) return `object not found: ${key}`;
  if (found.size !== size) return `${found.size} bytes, recorded ${size}`;
  if (etag !== '' && found.etag !== '' && found.etag !== etag) return `tag ${found.etag}, recorded ${etag}`;
  return undefined;
}
