import { CairnError } from '@cairn/base';
import { followLocal, LocalChannel, type Page, readLocal } from './local-channel.ts';
import { FENCE_RECORDS, type FollowOptions, type ReadOptions, type StoredRecord, type WalState, type WalStore } from './wal.ts';
import { channelMissing, checkChannel, checkRecordSize, checkSubject, WrongTailError } from './wal-errors.ts';

export interface MemoryWalOptions {
  readonly maxRecordBytes?: number;
}

const DEFAULT_MAX_RECORD_BYTES = 960 << 10;
const PAGE_RECORDS = 512;

class MemoryChannel extends LocalChannel {
  /** records[i] has sequence first + i. */
  records: StoredRecord[] = [];
}

/** The memory tenant: exact, instant, gone with the process. FaultyWalStore in front of it makes it a bad day. */
export class MemoryWalStore implements WalStore {
  readonly maxRecordBytes: number;
  readonly #channels = new Map<string, MemoryChannel>();

  constructor(options: MemoryWalOptions = {}) {
    this.maxRecordBytes = options.maxRecordBytes ?? DEFAULT_MAX_RECORD_BYTES;
  }

  async ensureChannel(channel: string): Promise<void> {
    checkChannel(channel);
    if (!this.#channels.has(channel)) this.#channels.set(channel, new MemoryChannel(channel, 1, 0));
  }

  async deleteChannel(channel: string): Promise<void> {
    const found = this.#channels.get(channel);
    if (!found) return;
    this.#channels.delete(channel);
    found.deleted = true;
    found.wake();
  }

  async listChannels(): Promise<string[]> {
    return [...this.#channels.keys()].sort();
  }

  async state(channel: string): Promise<WalState> {
    const { first, last } = this.#channel(channel);
    return { firstSequence: first, lastSequence: last };
  }

  async append(channel: string, subject: string, bytes: Uint8Array, expectedLast: number): Promise<number> {
    return this.#put(channel, subject, bytes, expectedLast, 1);
  }

  async appendFence(channel: string, subject: string, bytes: Uint8Array, expectedLast: number): Promise<number> {
    return this.#put(channel, subject, bytes, expectedLast, FENCE_RECORDS);
  }

  #put(name: string, subject: string, bytes: Uint8Array, expectedLast: number, copies: number): number {
    checkSubject(subject);
    checkRecordSize(name, bytes.byteLength, this.maxRecordBytes);
    const channel = this.#channel(name);
    if (channel.last !== expectedLast) throw new WrongTailError(name, expectedLast);
    for (let copy = 0; copy < copies; copy++) channel.records.push({ sequence: ++channel.last, subject, bytes });
    channel.tail = channel.last;
    channel.wake();
    return channel.last;
  }

  async *read(channel: string, options: ReadOptions): AsyncGenerator<readonly StoredRecord[]> {
    yield* readLocal(this.#channel(channel), options, scanMemory, async () => undefined);
  }

  async *follow(channel: string, options: FollowOptions): AsyncGenerator<readonly StoredRecord[]> {
    yield* followLocal(this.#channel(channel), options, scanMemory, async () => undefined);
  }

  async trim(name: string, before: number): Promise<void> {
    const channel = this.#channel(name);
    const first = Math.min(before, channel.last);
    if (first <= channel.first) return;
    channel.records = channel.records.slice(first - channel.first);
    channel.first = first;
    channel.wake();
  }

  async check(): Promise<string[]> {
    return ['the write-ahead log is in memory: nothing outlives the process'];
  }

  async ping(): Promise<void> {}

  async close(): Promise<void> {
    for (const channel of [...this.#channels.keys()]) await this.deleteChannel(channel);
  }

  #channel(name: string): MemoryChannel {
    const channel = this.#channels.get(name);
    if (!channel) throw channelMissing(name);
    return channel;
  }
}

function scanMemory(channel: LocalChannel, from: number, to: number, subjects: readonly string[] | undefined): Page {
  if (!(channel instanceof MemoryChannel)) throw new CairnError('Internal', `channel ${channel.name} is not in memory`);
  const through = Math.min(to, from + PAGE_RECORDS - 1);
  const page = channel.records.slice(from - channel.first, through - channel.first + 1);
  return { records: subjects ? page.filter((record) => subjects.includes(record.subject)) : page, through };
}
