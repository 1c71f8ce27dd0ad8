/** What an object or prefix of our layout is, read off its key. `name` is what follows the prefix, empty for the prefix itself. */
export type ObjectName =
  | {
      readonly kind: 'segment';
      readonly collection: number;
      readonly partition: number;
      readonly id: number;
      readonly prefix: string;
      readonly name: string;
    }
  | { readonly kind: 'delta'; readonly collection: number; readonly id: number; readonly prefix: string }
  | { readonly kind: 'manifests'; readonly collection: number; readonly id: number; readonly prefix: string; readonly name: string }
  | { readonly kind: 'metadata'; readonly collection: number; readonly id: number };

const SEGMENT = /^(segments\/(\d+)\/(\d+)\/(\d+)\/[^/]+\/)(.*)$/;
const DELTA = /^deltas\/(\d+)\/\d+\/(\d+)-[^/]+$/;
const MANIFESTS = /^(snapshots\/(\d+)\/manifests\/(\d+)\/)(.*)$/;
const METADATA = /^snapshots\/(\d+)\/metadata\/(\d+)\.json$/;
const INDEX = /^index\.\d+\.(\d+)(?:e\d+)?$/;

/** undefined: not of our layout. The inverse of `paths`. */
export function parseObjectName(key: string): ObjectName | undefined {
  const segment = SEGMENT.exec(key);
  if (segment) {
    const [, prefix = '', collection, partition, id, name = ''] = segment;
    return { kind: 'segment', collection: Number(collection), partition: Number(partition), id: Number(id), prefix, name };
  }
  const delta = DELTA.exec(key);
  if (delta) return { kind: 'delta', collection: Number(delta[1]), id: Number(delta[2]), prefix: key };
  const manifests = MANIFESTS.exec(key);
  if (manifests) {
    const [, prefix = '', collection, id, name = ''] = manifests;
    return { kind: 'manifests', collection: Number(collection), id: Number(id), prefix, name };
  }
  const metadata = METADATA.exec(key);
  return metadata ? { kind: 'metadata', collection: Number(metadata[1]), id: Number(metadata[2]) } : undefined;
}

/** Build id of an index object by its name inside a segment (`index.<field>.<build>`, with an epoch when a task wrote it). */
export function indexBuildOf(name: string): number | undefined {
  const build = INDEX.exec(name)?.[1];
  return build === undefined ? undefined : Number(build);
}
