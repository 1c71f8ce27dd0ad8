/** Writers, readers and searchers. */
import { type Expectation, narrowed, type Version } from '../support/model.ts';
import type { Row } from '../support/outcome.ts';
import { distance, type Look, vectorOf } from './client.ts';
import { type ClientCollection, DEFAULT_PARTITION } from './collection.ts';
import type { WorkParts } from './work-parts.ts';

export const KEYS_PER_WRITER = 40;
const MAX_ROWS = 12;
const ALIAS_CHANCE = 0.5;
/** Share of single rows among searched limits: 1 hit, some, all. */
const LIMITS = [1, 5, 20, 500];

interface Filter {
  readonly expr: string;
  readonly passes: (key: number, version: Version) => boolean;
}

export class RowWork {
  readonly #parts: WorkParts;

  constructor(parts: WorkParts) {
    this.#parts = parts;
  }

  /** Inserts, upserts or deletes some of a writer's keys, now and then into another partition. */
  async write(collection: ClientCollection, writer: number): Promise<void> {
    const parts = this.#parts;
    const { model } = collection;
    const draw = parts.random();
    const kind = draw < 0.35 && !parts.world.trims ? 'insert' : draw < 0.75 ? 'upsert' : 'delete';
    const partition = parts.pick([...collection.partitions]) ?? DEFAULT_PARTITION;
    const writes = new Map<number, Version>();
    const count = 1 + parts.world.simulation.below(MAX_ROWS);
    for (let i = 0; i < count; i++) {
      const key = model.pick(parts.random, KEYS_PER_WRITER, writer * KEYS_PER_WRITER);
      if (key === undefined || (kind === 'insert' && !model.isAbsent(key))) continue;
      const version = kind === 'delete' ? 0 : parts.version();
      collection.placed(version, partition);
      writes.set(key, version);
    }
    if (writes.size === 0) return;
    const address = collection.address(parts.coin(ALIAS_CHANCE));
    model.sent(writes);
    const rows = [...writes].map(([key, version]) => ({ key, version }));
    const into = partition === DEFAULT_PARTITION ? '' : partition;
    const outcome =
      kind === 'insert'
        ? await parts.client.insert(address.name, rows, into)
        : kind === 'upsert'
          ? await parts.client.upsert(address.name, rows, into)
          : await parts.client.delete(address.name, [...writes.keys()]);
    parts.count(kind, outcome);
    if (outcome.kind === 'done') model.acknowledged(writes);
    else model.unknown(writes);
    if (outcome.kind === 'refused' && !address.excused() && collection.partitions.has(partition))
      parts.problem(`${kind} into ${address.name} was refused: ${outcome.reason}`);
  }

  /** Empties the collection. Its only writer calls this: what is written meanwhile may stay or go. */
  async truncate(collection: ClientCollection): Promise<void> {
    const address = collection.address(this.#parts.coin(ALIAS_CHANCE));
    const writes = collection.model.emptied();
    collection.model.sent(writes);
    const outcome = await this.#parts.client.truncate(address.name);
    this.#parts.count('truncate', outcome);
    if (outcome.kind === 'done') collection.model.acknowledged(writes);
    else collection.model.unknown(writes);
    if (outcome.kind === 'refused' && !address.excused()) this.#parts.problem(`truncate was refused: ${outcome.reason}`);
  }

  async flush(collection: ClientCollection): Promise<void> {
    const { name } = collection.address(this.#parts.coin(ALIAS_CHANCE));
    this.#parts.count('flush', await this.#parts.client.flush(name));
  }

  /** Asked for, beside what the coordinator does by itself; purges what is deleted up to now. */
  async compact(collection: ClientCollection): Promise<void> {
    const address = collection.address(this.#parts.coin(ALIAS_CHANCE));
    const outcome = await this.#parts.client.compact(address.name);
    this.#parts.count(outcome.kind === 'done' && outcome.value.compactionPlanCount > 0 ? 'compact' : 'compact nothing', outcome);
    if (outcome.kind === 'refused' && !address.excused()) this.#parts.problem(`compaction was refused: ${outcome.reason}`);
  }

  /** A strong read of all rows, of chosen partitions, or of those that a filter lets through; or a search. */
  async read(collection: ClientCollection): Promise<void> {
    const parts = this.#parts;
    const filter = parts.coin(0.5) ? this.#filter(collection) : undefined;
    const partitions = parts.coin(0.3) ? [...collection.partitions].filter(() => parts.coin(0.6)) : [];
    const look: Look = { ...(filter ? { expr: filter.expr } : {}), ...(partitions.length > 0 ? { partitions } : {}) };
    const passes = (key: number, version: Version): boolean =>
      (filter?.passes(key, version) ?? true) && (partitions.length === 0 || partitions.includes(collection.partitionOf(version)));
    const address = collection.address(parts.coin(ALIAS_CHANCE));
    const search = parts.coin(0.4) ? { near: this.#somewhere(), limit: parts.pick(LIMITS) ?? 1 } : undefined;
    const watched = collection.model.watch();
    const outcome = search
      ? await parts.client.search(address.name, search.near, search.limit, look)
      : await parts.client.rows(address.name, 3, look);
    const expected = narrowed(watched(), passes);
    parts.count(search ? 'search' : 'read', outcome);
    if (collection.dropped) return;
    const what = `strong ${search ? 'search' : 'read'} of ${address.name} ${JSON.stringify(look)}`;
    if (outcome.kind === 'refused' && !address.excused() && partitions.every((name) => collection.partitions.has(name)))
      parts.problem(`${what} was refused: ${outcome.reason}`);
    if (outcome.kind !== 'done') return;
    const lasting = (rows: readonly Row[]): Row[] =>
      rows.filter(({ version }) => !collection.lingers(version, parts.world.simulation.nowMs));
    if (search) this.#compareHits(what, outcome.value, lasting(outcome.value), expected, search);
    else parts.compare(what, lasting(outcome.value), expected);
  }

  #filter(collection: ClientCollection): Filter {
    const { below } = this.#parts.world.simulation;
    const number = below.call(this.#parts.world.simulation, 3 * KEYS_PER_WRITER);
    const newest = Math.max(0, ...[...collection.model.now().values()].flatMap((versions) => [...versions]));
    const filters: Filter[] = [
      { expr: `id < ${number}`, passes: (key) => key < number },
      { expr: `version > ${newest - number}`, passes: (_, version) => version > newest - number },
      { expr: 'id % 3 == 1', passes: (key) => key % 3 === 1 },
      { expr: `payload like "${number % 10}%"`, passes: (key, version) => `${key}/${version}`.startsWith(String(number % 10)) },
      { expr: `not (id in [${number}, ${number + 1}]) and version >= 0`, passes: (key) => key !== number && key !== number + 1 },
    ];
    return this.#parts.pick(filters) as Filter;
  }

  #somewhere(): Row {
    const { simulation } = this.#parts.world;
    return { key: simulation.below(2 * KEYS_PER_WRITER), version: simulation.below(this.#parts.version() + 1) };
  }

  /** Every hit may be there, and no row that certainly is lies nearer than the last hit and was left out. */
  #compareHits(
    what: string,
    all: readonly Row[],
    hits: readonly Row[],
    expected: Expectation,
    asked: { readonly near: Row; readonly limit: number },
  ): void {
    const { near, limit } = asked;
    const target = vectorOf(near.key, near.version);
    const found = new Set(hits.map(({ key }) => key));
    if (found.size < hits.length) this.#parts.problem(`${what}: a key came twice`);
    for (const { key, version } of hits)
      if (!expected.get(key)?.has(version)) this.#parts.problem(`${what}: found key ${key} version ${version}, which cannot be there`);
    const last = all.at(-1);
    const reach = last && all.length >= limit ? distance(target, last) * (1 - 1e-4) : Number.POSITIVE_INFINITY;
    for (const [key, versions] of expected) {
      const [version = 0, ...others] = versions;
      if (found.has(key) || version === 0 || others.length > 0) continue;
      if (distance(target, { key, version }) < reach)
        this.#parts.problem(`${what}: key ${key} version ${version} is nearer than the last of ${hits.length} hits and was not found`);
    }
  }
}
