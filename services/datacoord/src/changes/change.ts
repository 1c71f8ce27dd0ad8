import { CairnError } from '@cairn/base';
import type { DatabaseRecord, Property } from '@cairn/proto/cairn/meta';
import type { CatalogState } from '../catalog-state.ts';
import type { Put } from '../leader-store.ts';

/** What a change does to the MetaStore. All of `puts` and `deletes` happen in one transaction with catalog/applied. */
export interface Effects {
  readonly puts: readonly Put[];
  readonly deletes: readonly string[];
  /**
   * Records that nobody sees before those in `puts` are there (partitions of a collection that is being created): written first, in pages, as
   * often as needed. They carry ids that never repeat.
   */
  readonly staged: readonly Put[];
  /** What the change made or found: collection id, index id, … */
  readonly id: number;
}

export interface ApplyContext {
  /** The change's own timestamp. */
  readonly ts: number;
  /** Wall clock of the leader that applies it, unix ms. */
  readonly nowMs: number;
  readonly snapshotTimeoutMs: number;
  /** Under which the change was asked for; empty before the append. */
  readonly requestId: string;
}

/**
 * A pure function: state as applied so far and a message → effects. A CairnError that it throws is the recorded answer, never retried. The same
 * function is run before the append, against the state of that moment, as a courtesy.
 */
export type ChangeHandler<C> = (state: CatalogState, change: C, context: ApplyContext) => Effects;

interface Encodable<T> {
  encode(message: T): { finish(): Uint8Array };
}

export function putRecord<T>(key: string, codec: Encodable<T>, record: T): Put {
  return { key, value: codec.encode(record).finish() };
}

export function effects(id: number, parts: Partial<Omit<Effects, 'id'>> = {}): Effects {
  return { puts: parts.puts ?? [], deletes: parts.deletes ?? [], staged: parts.staged ?? [], id };
}

/** Longest name of anything, in characters. */
export const MAX_NAME_LENGTH = 255;

/** Milvus's rule for names: not empty, at most 255, first a letter or `_`, then letters, digits, `_`. `what` is in the message: "collection name". */
export function checkName(what: string, name: string): void {
  if (name === '') throw new CairnError('InvalidParameter', `${what} should not be empty`);
  // Milvus begins these words with a capital for parts of a collection only.
  const first = (text: string): string => (CAPITAL.has(what) ? text.charAt(0).toUpperCase() + text.slice(1) : text);
  const article = /^[aeiou]/.test(what) ? `an ${what}` : `a ${what}`;
  const wrong = (shown: string, words: string): CairnError =>
    new CairnError('InvalidParameter', `Invalid ${what}: ${shown}. ${first(words)}`);
  if (name.length > MAX_NAME_LENGTH) {
    const limit = `the length of ${article} must be less than ${MAX_NAME_LENGTH} characters, or as many`;
    throw wrong(`${name.slice(0, 64)}…`, `${limit}: it has ${name.length}`);
  }
  if (!/^[A-Za-z_]/.test(name)) throw wrong(name, `the first character of ${article} must be an underscore or letter`);
  if (!/^\w+$/.test(name)) throw wrong(name, `${what} can only contain numbers, letters and underscores`);
}

const CAPITAL: ReadonlySet<string> = new Set(['partition name', 'index name']);

/** One name for a collection and an alias. `what`: said first. */
export function aliasConflict(database: DatabaseRecord, alias: string, what = ''): CairnError {
  const conflict = `alias and collection name conflict[database=${database.name}][alias=${alias}]`;
  return new CairnError('AliasCollectionConflict', what === '' ? conflict : `${what}: ${conflict}`);
}

/** Properties with some set and some removed, sorted by key. Setting and removing the same key is InvalidParameter. */
export function alterProperties(before: readonly Property[], set: readonly Property[], deleteKeys: readonly string[]): Property[] {
  const merged = new Map(before.map((property) => [property.key, property.value]));
  for (const { key, value } of set) {
    if (deleteKeys.includes(key)) throw new CairnError('InvalidParameter', `property ${key} cannot be set and deleted at once`);
    merged.set(key, value);
  }
  for (const key of deleteKeys) merged.delete(key);
  return [...merged].sort(([a], [b]) => (a < b ? -1 : 1)).map(([key, value]) => ({ key, value }));
}

export function sameProperties(a: readonly Property[], b: readonly Property[]): boolean {
  const text = (properties: readonly Property[]): string =>
    JSON.stringify(properties.map(({ key, value }) => [key, value]).sort(([x], [y]) => ((x ?? '') < (y ?? '') ? -1 : 1)));
  return text(a) === text(b);
}
