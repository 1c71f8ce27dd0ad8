import type { Turns } from '@cairn/base';
import { parseObjectName } from '@cairn/catalog';
import type { ObjectInfo, ObjectStore } from '@cairn/objects';
import { NumberList, NumberTable } from './number-table.ts';
import { numberOf } from './reference-set.ts';

/** Keys of objects that nothing covers, kept as examples; more are counted. */
const MAX_EXAMPLES = 100;
const ROOTS = ['segments/', 'deltas/', 'snapshots/'] as const;
const INDEX_NAME = /^index\.(\d+)\.(\d+)(?:e(\d+))?$/;

/** One index object in a segment's prefix. */
export interface ListedIndex {
  readonly key: string;
  readonly bytes: number;
  readonly build: number;
}

/** Names of index objects by number, so that a million of them fit: field, build and epoch (+ 1; 0 is none). */
interface Indexes {
  readonly group: NumberList;
  readonly field: NumberList;
  readonly build: NumberList;
  readonly epoch: NumberList;
  readonly bytes: NumberList;
}

/**
 * What the bucket held when it was listed: objects and bytes by prefix, and the index objects, as numbers in columns (about 30 bytes a prefix, 50
 * an index object), never as text. The keys of a prefix follow each other in a listing.
 */
export class BucketListing {
  readonly #position = new NumberTable();
  readonly #objects = new NumberList();
  readonly #bytes = new NumberList();
  readonly #firstIndex = new NumberList();
  readonly #indexes: Indexes = {
    group: new NumberList(),
    field: new NumberList(),
    build: new NumberList(),
    epoch: new NumberList(),
    bytes: new NumberList(),
  };
  /** Groups that a prefix record was found for. */
  readonly #known = new NumberTable();
  readonly #knownBefore: NumberTable;
  readonly #examples: { readonly prefix: string; readonly group: number }[] = [];
  /** Objects of no prefix of ours, and snapshot metadata, few of them with their keys. */
  readonly stray = { objects: 0, bytes: 0, examples: [] as string[] };
  readonly metadata: { readonly key: string; readonly bytes: number; readonly id: number }[] = [];
  objects = 0;
  bytes = 0;
  #prefix = '';
  #group = -1;

  /** `knownBefore`: numbers of the prefixes that had a record before the listing; only others may be examples of unknown ones. */
  constructor(knownBefore: NumberTable) {
    this.#knownBefore = knownBefore;
  }

  static async read(objects: ObjectStore, knownBefore: NumberTable, turns: Turns): Promise<BucketListing> {
    const listing = new BucketListing(knownBefore);
    for (const root of ROOTS) {
      let after: string | undefined;
      do {
        const page = await objects.list(root, after === undefined ? {} : { after });
        for (const object of page.objects) listing.take(object);
        if (turns.due) await turns.give();
        after = page.next;
      } while (after !== undefined);
    }
    return listing;
  }

  take({ key, size }: Pick<ObjectInfo, 'key' | 'size'>): void {
    this.objects++;
    this.bytes += size;
    if (this.#group < 0 || !key.startsWith(this.#prefix) || !this.#prefix.endsWith('/')) {
      const name = parseObjectName(key);
      if (name?.kind === 'metadata') this.metadata.push({ key, bytes: size, id: name.id });
      else if (!name) this.#strayed(key, size);
      if (!name || name.kind === 'metadata') return;
      this.#begin(name.prefix);
    }
    this.#objects.add(this.#group, 1);
    this.#bytes.add(this.#group, size);
    if (this.#prefix.startsWith('segments/')) this.#index(key.slice(this.#prefix.length), size);
  }

  #strayed(key: string, size: number): void {
    this.stray.objects++;
    this.stray.bytes += size;
    if (this.stray.examples.length < MAX_EXAMPLES) this.stray.examples.push(key);
  }

  #begin(prefix: string): void {
    const number = numberOf(prefix);
    this.#prefix = prefix;
    const known = this.#position.get(number);
    if (known !== undefined) {
      this.#group = known;
      return;
    }
    this.#group = this.#objects.length;
    this.#position.set(number, this.#group);
    this.#objects.push(0);
    this.#bytes.push(0);
    this.#firstIndex.push(-1);
    if (this.#examples.length < MAX_EXAMPLES && !this.#knownBefore.has(number)) this.#examples.push({ prefix, group: this.#group });
  }

  #index(name: string, size: number): void {
    if (!name.startsWith('index.')) return;
    const found = INDEX_NAME.exec(name);
    if (!found) return;
    const { group, field, build, epoch, bytes } = this.#indexes;
    if (this.#firstIndex.at(this.#group) < 0) this.#firstIndex.add(this.#group, group.length + 1);
    group.push(this.#group);
    field.push(Number(found[1]));
    build.push(Number(found[2]));
    epoch.push(found[3] === undefined ? 0 : Number(found[3]) + 1);
    bytes.push(size);
  }

  /** What lies under a prefix that has a record. */
  of(prefix: string): { readonly objects: number; readonly bytes: number } {
    const group = this.#position.get(numberOf(prefix));
    if (group === undefined) return { objects: 0, bytes: 0 };
    this.#known.set(group + 1, 1);
    return { objects: this.#objects.at(group), bytes: this.#bytes.at(group) };
  }

  /** Index objects under a prefix. */
  *indexesOf(prefix: string): Generator<ListedIndex> {
    const group = this.#position.get(numberOf(prefix));
    const first = group === undefined ? -1 : this.#firstIndex.at(group);
    if (group === undefined || first < 0) return;
    const { group: groups, field, build, epoch, bytes } = this.#indexes;
    for (let at = first; at < groups.length && groups.at(at) === group; at++) {
      const suffix = epoch.at(at) === 0 ? '' : `e${epoch.at(at) - 1}`;
      yield { key: `${prefix}index.${field.at(at)}.${build.at(at)}${suffix}`, bytes: bytes.at(at), build: build.at(at) };
    }
  }

  /** Groups that `of` was never asked for, with examples of them. */
  async unknown(turns: Turns): Promise<{ objects: number; bytes: number; examples: string[] }> {
    const found = { ...this.stray, examples: [...this.stray.examples] };
    for (let group = 0; group < this.#objects.length; group++) {
      if (group % 4_096 === 0 && turns.due) await turns.give();
      if (this.#known.has(group + 1)) continue;
      found.objects += this.#objects.at(group);
      found.bytes += this.#bytes.at(group);
    }
    for (const { prefix, group } of this.#examples) if (!this.#known.has(group + 1)) found.examples.push(prefix);
    return found;
  }
}
