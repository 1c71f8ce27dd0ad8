import { CairnError, type Config, type Runtime } from '@cairn/base';
import type { CollectionEntry } from './proxy-catalog.ts';

/** What is counted: bytes of inserts and upserts, bytes of deletes, query vectors of searches, queries, flushes; changes of the catalog by number. */
export type RateKind = 'insert' | 'upsert' | 'delete' | 'search' | 'query' | 'flush' | 'ddl';

interface Rate {
  /** Of all collections, a second; 0: no limit. */
  readonly all: (quota: Config['quota']) => number;
  /** Of one collection, where it says nothing itself. */
  readonly each: (quota: Config['quota']) => number;
  /** Property by which a collection has a limit of its own, as Milvus names it, and what one unit of it is. */
  readonly property: string;
  readonly unit: number;
  readonly what: string;
}

const MB = 1 << 20;
const RATES: Readonly<Record<RateKind, Rate>> = {
  insert: {
    ...{ all: (quota) => quota.insertBytesPerSecond, each: (quota) => quota.collectionInsertBytesPerSecond },
    ...{ property: 'collection.insertRate.max.mb', unit: MB, what: 'bytes of inserts' },
  },
  upsert: {
    ...{ all: (quota) => quota.insertBytesPerSecond, each: (quota) => quota.collectionInsertBytesPerSecond },
    ...{ property: 'collection.upsertRate.max.mb', unit: MB, what: 'bytes of upserts' },
  },
  delete: {
    ...{ all: (quota) => quota.deleteBytesPerSecond, each: () => 0 },
    ...{ property: 'collection.deleteRate.max.mb', unit: MB, what: 'bytes of deletes' },
  },
  search: {
    ...{ all: (quota) => quota.searchVectorsPerSecond, each: (quota) => quota.collectionSearchVectorsPerSecond },
    ...{ property: 'collection.searchRate.max.vps', unit: 1, what: 'searched vectors' },
  },
  query: {
    ...{ all: (quota) => quota.queriesPerSecond, each: (quota) => quota.collectionQueriesPerSecond },
    ...{ property: 'collection.queryRate.max.qps', unit: 1, what: 'queries' },
  },
  flush: {
    ...{ all: (quota) => quota.flushesPerSecond, each: () => 0 },
    ...{ property: 'collection.flushRate.max.qps', unit: 1, what: 'flushes' },
  },
  ddl: { all: (quota) => quota.ddlPerSecond, each: () => 0, property: '', unit: 1, what: 'changes of the catalog' },
};

/** Buckets kept for single collections; full ones are forgotten beyond it. */
const MAX_BUCKETS = 10_000;

/** Tokens for one second; a request larger than that passes when there is any token, and those after it wait until its debt is paid. */
class TokenBucket {
  readonly rate: number;
  #tokens: number;
  #atMs: number;

  constructor(rate: number, nowMs: number) {
    this.rate = rate;
    this.#tokens = this.#most;
    this.#atMs = nowMs;
  }

  /** Of slow rates at least one request passes at once. */
  get #most(): number {
    return Math.max(1, this.rate);
  }

  isFull(nowMs: number): boolean {
    this.#refill(nowMs);
    return this.#tokens >= this.#most;
  }

  hasToken(nowMs: number): boolean {
    this.#refill(nowMs);
    // A hair less than one counts as one: tokens are added in fractions.
    return this.#tokens > 1 - 1e-6;
  }

  take(count: number): void {
    this.#tokens -= count;
  }

  #refill(nowMs: number): void {
    this.#tokens = Math.min(this.#most, this.#tokens + ((nowMs - this.#atMs) / 1000) * this.rate);
    this.#atMs = nowMs;
  }
}

/**
 * Limits by rate, and the switches that refuse writes or reads. They hold for this proxy: several proxies let through as many times as much. A
 * request that is refused has done nothing; RateLimit is retriable, and SDKs wait and try again by themselves.
 */
export class Quota {
  readonly #quota: Config['quota'];
  readonly #runtime: Runtime;
  readonly #all = new Map<RateKind, TokenBucket>();
  readonly #byCollection = new Map<string, TokenBucket>();

  constructor(config: Pick<Config, 'quota'>, runtime: Runtime) {
    this.#quota = config.quota;
    this.#runtime = runtime;
  }

  /** ForceDeny when writes are switched off, RateLimit when the limit of the proxy or of the collection is reached. */
  write(entry: CollectionEntry, kind: 'insert' | 'upsert' | 'delete' | 'flush', count: number): void {
    // A flush writes nothing that was not written before.
    if (kind !== 'flush') this.#refuseDenied(entry, 'writing', this.#quota.denyWriting);
    this.#take(kind, count, entry);
  }

  /** The same for reads. */
  read(entry: CollectionEntry, kind: 'search' | 'query', count: number): void {
    this.#refuseDenied(entry, 'reading', this.#quota.denyReading);
    this.#take(kind, count, entry);
  }

  /** A change of the catalog. */
  ddl(): void {
    this.#take('ddl', 1, undefined);
  }

  #refuseDenied({ database, record }: CollectionEntry, what: 'writing' | 'reading', denied: boolean): void {
    const property = `database.force.deny.${what}`;
    const byDatabase = database.properties.some(({ key, value }) => key === property && value.toLowerCase() === 'true');
    if (!denied && !byDatabase) return;
    const why = byDatabase
      ? `property ${property} of database ${database.name}`
      : `quota.deny${what === 'writing' ? 'Writing' : 'Reading'}`;
    throw new CairnError('ForceDeny', `${what} of collection ${record.name} is denied: ${why}`);
  }

  #take(kind: RateKind, count: number, entry: CollectionEntry | undefined): void {
    const rate = RATES[kind];
    const nowMs = this.#runtime.monotonic();
    const buckets: TokenBucket[] = [];
    const check = (bucket: TokenBucket | undefined, whose: string): void => {
      if (!bucket) return;
      if (!bucket.hasToken(nowMs)) {
        throw new CairnError(
          'RateLimit',
          `request is rejected by rate limiter, please retry later: more than ${bucket.rate} ${rate.what} a second ${whose}`,
        );
      }
      buckets.push(bucket);
    };
    // Inserts and upserts share what all may write.
    const shared = kind === 'upsert' ? 'insert' : kind;
    check(bucketOf(this.#all, shared, rate.all(this.#quota), nowMs), 'in this proxy');
    if (entry) check(this.#ofCollection(kind, rate, entry, nowMs), `in collection ${entry.record.name}`);
    for (const bucket of buckets) bucket.take(count);
  }

  #ofCollection(kind: RateKind, rate: Rate, { record }: CollectionEntry, nowMs: number): TokenBucket | undefined {
    const own = Number(record.properties.find(({ key }) => key === rate.property)?.value ?? Number.NaN);
    const limit = own >= 0 ? own * rate.unit : rate.each(this.#quota);
    if (this.#byCollection.size > MAX_BUCKETS) {
      for (const [key, bucket] of this.#byCollection) if (bucket.isFull(nowMs)) this.#byCollection.delete(key);
    }
    return bucketOf(this.#byCollection, `${kind}/${record.id}`, limit, nowMs);
  }
}

/** The bucket under the key, made anew when its rate has changed; undefined without a limit. */
function bucketOf<K>(buckets: Map<K, TokenBucket>, key: K, rate: number, nowMs: number): TokenBucket | undefined {
  if (rate === 0) return undefined;
  const before = buckets.get(key);
  if (before?.rate === rate) return before;
  const bucket = new TokenBucket(rate, nowMs);
  buckets.set(key, bucket);
  return bucket;
}
