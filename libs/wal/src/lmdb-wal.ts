import { setImmediate as nextTurn } from 'node:timers/promises';
import { CairnError, type Logger } from '@cairn/base';
import { type Database, open, type RootDatabase } from 'lmdb';
import { followLocal, LocalChannel, type Page, readLocal } from './local-channel.ts';
import { FENCE_RECORDS, type FollowOptions, type ReadOptions, type StoredRecord, type WalState, type WalStore } from './wal.ts';
import { channelMissing, checkChannel, checkRecordSize, checkSubject, storeUnavailable, WrongTailError } from './wal-errors.ts';

export interface LmdbWalOptions {
  /** Directory of the environment; created when missing. One process at a time. */
  readonly path: string;
  readonly logger: Logger;
  readonly maxRecordBytes?: number;
}

/** Channel number, sequence, subject: a filter by subject never touches values, and a value is stored as it came. */
type RecordKey = [number, number, string];

const DEFAULT_MAX_RECORD_BYTES = 960 << 10;
/** A page of a scan stays below the 10 ms that a thread may be held. */
const PAGE_RECORDS = 512;
const PAGE_BYTES = 4 << 20;
const TRIM_BATCH = 512;

class LmdbChannel extends LocalChannel {
  readonly number: number;
  /** Appends that LMDB has not committed yet. */
  open = 0;
  /** An append failed: what was given out behind it must be taken away before the channel goes on. */
  broken = false;
  /** Settles as the newest append does: after all before it, and not well if one of them failed. */
  settled: Promise<void> = Promise.resolve();
  trimming: Promise<void> = Promise.resolve();

  constructor(name: string, number: number, first: number, last: number) {
    super(name, first, last);
    this.number = number;
  }
}

/**
 * The embedded tenant: all channels in one LMDB environment. Appends of one turn of the event loop share a commit; a commit is synced to
 * disk before its appends resolve (no overlapping sync). One process owns the environment, so expectations are checked in memory, in the
 * order of the calls.
 */
export class LmdbWalStore implements WalStore {
  readonly maxRecordBytes: number;
  readonly #environment: RootDatabase<Buffer, string>;
  readonly #records: Database<Buffer, RecordKey>;
  readonly #names: Database<number, string>;
  readonly #channels = new Map<string, LmdbChannel>();
  readonly #logger: Logger;
  #closed = false;

  constructor(options: LmdbWalOptions) {
    this.maxRecordBytes = options.maxRecordBytes ?? DEFAULT_MAX_RECORD_BYTES;
    this.#logger = options.logger;
    this.#environment = open<Buffer, string>({
      path: options.path,
      maxDbs: 4,
      encoding: 'binary',
      overlappingSync: false,
      noSubdir: false,
    });
    this.#records = this.#environment.openDB<Buffer, RecordKey>({ name: 'records', encoding: 'binary' });
    this.#names = this.#environment.openDB<number, string>({ name: 'channels', encoding: 'msgpack' });
    for (const { key, value } of this.#names.getRange()) this.#channels.set(key, this.#load(key, value));
  }

  /** Bounds of a channel, from its keys: the last record is never trimmed, so they tell the whole state. */
  #load(name: string, number: number): LmdbChannel {
    const [first] = this.#records.getKeys({ start: [number, 0, ''], end: [number + 1, 0, ''], limit: 1 });
    const [last] = this.#records.getKeys({ start: [number + 1, 0, ''], end: [number, 0, ''], reverse: true, limit: 1 });
    return new LmdbChannel(name, number, first?.[1] ?? 1, last?.[1] ?? 0);
  }

  async ensureChannel(channel: string): Promise<void> {
    checkChannel(channel);
    if (this.#channels.has(channel)) return;
    const number = await this.#environment.transaction(() => {
      const known = this.#names.get(channel);
      if (known !== undefined) return known;
      let highest = 0;
      for (const { value } of this.#names.getRange()) highest = Math.max(highest, value);
      void this.#names.put(channel, highest + 1);
      return highest + 1;
    });
    if (!this.#channels.has(channel)) this.#channels.set(channel, new LmdbChannel(channel, number, 1, 0));
  }

  async deleteChannel(name: string): Promise<void> {
    const channel = this.#channels.get(name);
    if (!channel) return;
    this.#channels.delete(name);
    channel.deleted = true;
    channel.wake();
    // Appends under way must be there to be removed: the channel's number may be given out again.
    await this.#environment.committed;
    await this.#forget(channel, 0, Number.MAX_SAFE_INTEGER);
    await this.#names.remove(name);
  }

  async listChannels(): Promise<string[]> {
    return [...this.#channels.keys()].sort();
  }

  async state(name: string): Promise<WalState> {
    const channel = this.#channel(name);
    return { firstSequence: channel.first, lastSequence: channel.last };
  }

  appendFence(channel: string, subject: string, bytes: Uint8Array, expectedLast: number): Promise<number> {
    return this.#put(channel, subject, bytes, expectedLast, FENCE_RECORDS);
  }

  append(channel: string, subject: string, bytes: Uint8Array, expectedLast: number): Promise<number> {
    return this.#put(channel, subject, bytes, expectedLast, 1);
  }

  async #put(name: string, subject: string, bytes: Uint8Array, expectedLast: number, copies: number): Promise<number> {
    checkSubject(subject);
    checkRecordSize(name, bytes.byteLength, this.maxRecordBytes);
    const channel = this.#channel(name);
    if (channel.broken) throw storeUnavailable(name, `append behind a failed one`);
    if (channel.tail !== expectedLast) throw new WrongTailError(name, expectedLast);
    const first = channel.tail + 1;
    channel.tail += copies;
    const sequence = channel.tail;
    const value = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const before = channel.settled;
    const settled = Promise.withResolvers<void>();
    settled.promise.catch(() => undefined);
    channel.settled = settled.promise;
    channel.open++;
    try {
      if (copies === 1) await this.#records.put([channel.number, sequence, subject], value);
      else {
        await this.#records.batch(() => {
          // The batch settles for all of them.
          for (let at = first; at <= sequence; at++) this.#records.put([channel.number, at, subject], value).catch(() => undefined);
        });
      }
      // LMDB commits in order, but its promises need not resolve in it. Behind a failed append nothing counts, though it may be on disk for
      // now; repair takes it away.
      await before;
      settled.resolve();
    } catch (error) {
      channel.broken = true;
      settled.reject(error);
      throw storeUnavailable(name, `append of ${sequence}`, error);
    } finally {
      channel.open--;
      if (channel.broken && channel.open === 0) void this.#repair(channel);
    }
    channel.last = sequence;
    channel.wake();
    return sequence;
  }

  /** After a failed commit (a full disk, for one): removes what later commits wrote behind the hole, so that sequences stay without holes. */
  async #repair(channel: LmdbChannel): Promise<void> {
    try {
      await this.#forget(channel, channel.last + 1, Number.MAX_SAFE_INTEGER);
      channel.tail = channel.last;
      channel.settled = Promise.resolve();
      channel.broken = false;
    } catch (error) {
      this.#logger.error({ channel: channel.name, error }, 'channel of the embedded log stays closed for appends until a restart');
    }
  }

  async *read(name: string, options: ReadOptions): AsyncGenerator<readonly StoredRecord[]> {
    yield* readLocal(this.#channel(name), options, this.#scan, nextTurn);
  }

  async *follow(name: string, options: FollowOptions): AsyncGenerator<readonly StoredRecord[]> {
    yield* followLocal(this.#channel(name), options, this.#scan, nextTurn);
  }

  readonly #scan = (channel: LocalChannel, from: number, to: number, subjects: readonly string[] | undefined): Page => {
    if (!(channel instanceof LmdbChannel)) throw new CairnError('Internal', `channel ${channel.name} is not of this store`);
    if (this.#closed) throw storeUnavailable(channel.name, 'read after close');
    const records: StoredRecord[] = [];
    let bytes = 0;
    let through = from - 1;
    const range = { start: [channel.number, from, ''] as RecordKey, end: [channel.number, to + 1, ''] as RecordKey, limit: PAGE_RECORDS };
    for (const key of this.#records.getKeys(range)) {
      const [, sequence, subject] = key;
      if (sequence !== through + 1)
        throw new CairnError('ObjectDamaged', `channel ${channel.name}: record ${through + 1} is missing before ${sequence}`);
      through = sequence;
      if (subjects && !subjects.includes(subject)) continue;
      const value = this.#records.getBinary(key);
      if (!value) throw new CairnError('ObjectDamaged', `channel ${channel.name}: record ${sequence} has no value`);
      records.push({ sequence, subject, bytes: value });
      bytes += value.byteLength;
      if (bytes >= PAGE_BYTES) break;
    }
    if (through < from)
      throw new CairnError(
        'ObjectDamaged',
        `channel ${channel.name}: record ${from} is missing, the channel holds ${channel.first} to ${channel.last}`,
      );
    return { records, through };
  };

  async trim(name: string, before: number): Promise<void> {
    const channel = this.#channel(name);
    const first = Math.min(before, channel.last);
    if (first <= channel.first) return;
    // Readers learn it first: nothing is read that may vanish under the scan.
    channel.first = first;
    channel.wake();
    channel.trimming = channel.trimming.catch(() => undefined).then(() => this.#forget(channel, 0, first));
    await channel.trimming;
  }

  /** Removes sequences from..before - 1, in ascending order, in several commits. */
  async #forget(channel: LmdbChannel, from: number, before: number): Promise<void> {
    for (;;) {
      const keys = [...this.#records.getKeys({ start: [channel.number, from, ''], end: [channel.number, before, ''], limit: TRIM_BATCH })];
      if (keys.length === 0) return;
      await this.#environment.transaction(() => {
        for (const key of keys) void this.#records.remove(key);
      });
    }
  }

  async check(): Promise<string[]> {
    return [];
  }

  async ping(): Promise<void> {
    if (this.#closed) throw new CairnError('StoreUnavailable', 'the embedded write-ahead log is closed');
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    for (const channel of this.#channels.values()) {
      channel.deleted = true;
      channel.wake();
    }
    await this.#environment.committed;
    await this.#environment.close();
  }

  #channel(name: string): LmdbChannel {
    if (this.#closed) throw storeUnavailable(name, 'use after close');
    const channel = this.#channels.get(name);
    if (!channel) throw channelMissing(name);
    return channel;
  }
}
