import { type RetryPolicy, type Runtime, randomId, retry } from '@cairn/base';
import { DiscardPolicy, JetStreamApiError, RetentionPolicy, StorageType, type StreamConfig, type StreamInfo } from '@nats-io/jetstream';
import { headers } from '@nats-io/transport-node';
import { checkJetStream } from './jetstream-check.ts';
import {
  asWalError,
  type ChannelStream,
  connectJetStream,
  isClusterNotReady,
  isStreamMissing,
  type JetStreamConnection,
  type JetStreamConnectionOptions,
} from './jetstream-connection.ts';
import { followStream } from './jetstream-follow.ts';
import { readStream } from './jetstream-read.ts';
import { FENCE_RECORDS, type FollowOptions, type ReadOptions, type StoredRecord, type WalState, type WalStore } from './wal.ts';
import { checkChannel, checkRecordSize, checkSubject, storeUnavailable } from './wal-errors.ts';

export interface JetStreamWalOptions extends JetStreamConnectionOptions {
  /** wal.nats.prefix: streams are `<prefix>_<channel>`, subjects `<prefix>.<channel>.<subject>`. */
  readonly prefix?: string;
  /** wal.nats.replicas: 1, or 3 for high availability. Of streams that this store creates. */
  readonly replicas?: number;
  /** wal.maxRecordBytes; less where the server's max_payload is less. */
  readonly maxRecordBytes?: number;
  /** wal.nats.monitors: HTTP monitoring addresses, by which `check` sees the sync interval. */
  readonly monitors?: readonly string[];
  /** wal.nats.followIdleMs: how often an idle follower looks where the channel stands. */
  readonly followIdleMs?: number;
}

const DEFAULT_PREFIX = 'cairn';
const DEFAULT_MAX_RECORD_BYTES = 960 << 10;
/** Room for subject and headers inside max_payload. */
const HEADER_ROOM_BYTES = 4096;
const DEFAULT_FOLLOW_IDLE_MS = 2000;

/** A cluster that has just started refuses streams of three replicas until its members know each other and one leads: asked again for some 20 s. */
const CREATION_RETRY: RetryPolicy = { attempts: 16, firstDelayMs: 100, maxDelayMs: 2000, retriable: isClusterNotReady };

/** Headers of an atomic batch; the last message carries the commit. */
const BATCH_ID = 'Nats-Batch-Id';
const BATCH_SEQUENCE = 'Nats-Batch-Sequence';
const BATCH_COMMIT = 'Nats-Batch-Commit';
const EXPECTED_LAST = 'Nats-Expected-Last-Sequence';

/**
 * The real tenant: one JetStream stream for each channel, file storage. Durable means `sync_interval: always` on the servers (see `check`);
 * replicas are for availability. A fence is an atomic batch (nats-server 2.12).
 */
export class JetStreamWalStore implements WalStore {
  readonly maxRecordBytes: number;
  readonly #connection: JetStreamConnection;
  readonly #runtime: Runtime;
  readonly #options: JetStreamWalOptions;
  readonly #prefix: string;
  readonly #closing = new AbortController();

  private constructor(connection: JetStreamConnection, options: JetStreamWalOptions) {
    this.#connection = connection;
    this.#options = options;
    this.#runtime = options.runtime;
    this.#prefix = options.prefix ?? DEFAULT_PREFIX;
    const maxPayload = connection.nats.info?.max_payload ?? DEFAULT_MAX_RECORD_BYTES;
    this.maxRecordBytes = Math.min(options.maxRecordBytes ?? DEFAULT_MAX_RECORD_BYTES, maxPayload - HEADER_ROOM_BYTES);
  }

  /** Connects; waits while no server answers, until `options.signal` aborts. */
  static async open(options: JetStreamWalOptions): Promise<JetStreamWalStore> {
    return new JetStreamWalStore(await connectJetStream(options), options);
  }

  async ensureChannel(channel: string): Promise<void> {
    checkChannel(channel);
    const { manager } = this.#connection;
    const ensure = async (): Promise<void> => {
      try {
        await manager.streams.info(this.#stream(channel));
      } catch (error) {
        if (!isStreamMissing(error)) throw asWalError(error, channel, 'look-up');
        await this.#call(channel, 'creation', () => manager.streams.add(this.#config(channel)));
      }
    };
    await retry(this.#runtime, CREATION_RETRY, ensure, this.#closing.signal);
  }

  #config(channel: string): Partial<StreamConfig> & { name: string } {
    return {
      name: this.#stream(channel),
      subjects: [`${this.#prefix}.${channel}.>`],
      storage: StorageType.File,
      retention: RetentionPolicy.Limits,
      discard: DiscardPolicy.New,
      num_replicas: this.#options.replicas ?? 1,
      allow_direct: true,
      allow_atomic: true,
    };
  }

  async deleteChannel(channel: string): Promise<void> {
    try {
      await this.#connection.manager.streams.delete(this.#stream(channel));
    } catch (error) {
      if (!isStreamMissing(error)) throw asWalError(error, channel, 'deletion');
    }
  }

  async listChannels(): Promise<string[]> {
    const names: string[] = [];
    try {
      for await (const name of this.#connection.manager.streams.names(`${this.#prefix}.*.>`))
        names.push(name.slice(this.#prefix.length + 1));
    } catch (error) {
      // A server without any stream answers "not found" to a filtered list.
      if (!(error instanceof JetStreamApiError && error.status === 404)) throw asWalError(error, '*', 'list');
    }
    return names.sort();
  }

  async state(channel: string): Promise<WalState> {
    const { state } = await this.#info(channel);
    // An empty stream reports 0 as its first sequence until something was in it.
    return { firstSequence: state.messages === 0 ? state.last_seq + 1 : state.first_seq, lastSequence: state.last_seq };
  }

  #info(channel: string): Promise<StreamInfo> {
    return this.#call(channel, 'state', () => this.#connection.manager.streams.info(this.#stream(channel)));
  }

  async append(channel: string, subject: string, bytes: Uint8Array, expectedLast: number): Promise<number> {
    checkSubject(subject);
    checkRecordSize(channel, bytes.byteLength, this.maxRecordBytes);
    try {
      const options = { expect: { lastSequence: expectedLast }, timeout: this.#connection.requestTimeoutMs };
      const { seq } = await this.#connection.client.publish(this.#subject(channel, subject), bytes, options);
      return seq;
    } catch (error) {
      throw asWalError(error, channel, 'append', expectedLast);
    }
  }

  async appendFence(channel: string, subject: string, bytes: Uint8Array, expectedLast: number): Promise<number> {
    checkSubject(subject);
    checkRecordSize(channel, bytes.byteLength, this.maxRecordBytes);
    const { nats, requestTimeoutMs } = this.#connection;
    const batch = randomId(this.#runtime);
    const full = this.#subject(channel, subject);
    try {
      for (let copy = 1; copy < FENCE_RECORDS; copy++) {
        const header = headers();
        header.set(BATCH_ID, batch);
        header.set(BATCH_SEQUENCE, `${copy}`);
        if (copy === 1) header.set(EXPECTED_LAST, `${expectedLast}`);
        nats.publish(full, bytes, { headers: header });
      }
      const header = headers();
      header.set(BATCH_ID, batch);
      header.set(BATCH_SEQUENCE, `${FENCE_RECORDS}`);
      header.set(BATCH_COMMIT, '1');
      const reply = await nats.request(full, bytes, { headers: header, timeout: requestTimeoutMs });
      const answer = reply.json<{ seq?: number; error?: { code: number; err_code: number; description: string } }>();
      if (answer.error) throw new JetStreamApiError(answer.error);
      if (answer.seq !== expectedLast + FENCE_RECORDS)
        throw storeUnavailable(channel, `fence (expected at ${expectedLast + FENCE_RECORDS}, said to be at ${answer.seq})`);
      return answer.seq;
    } catch (error) {
      throw asWalError(error, channel, 'fence', expectedLast);
    }
  }

  read(channel: string, options: ReadOptions): AsyncIterable<readonly StoredRecord[]> {
    return readStream(this.#streamOf(channel), options);
  }

  follow(channel: string, options: FollowOptions): AsyncIterable<readonly StoredRecord[]> {
    const signal = AbortSignal.any([options.signal, this.#closing.signal]);
    return followStream(this.#streamOf(channel), { ...options, signal }, this.#options.followIdleMs ?? DEFAULT_FOLLOW_IDLE_MS);
  }

  async trim(channel: string, before: number): Promise<void> {
    const { firstSequence, lastSequence } = await this.state(channel);
    const first = Math.min(before, lastSequence);
    if (first <= firstSequence) return;
    await this.#call(channel, 'trim', () => this.#connection.manager.streams.purge(this.#stream(channel), { seq: first }));
  }

  async check(): Promise<string[]> {
    const channels = await this.listChannels();
    return checkJetStream(this.#connection, {
      monitors: this.#options.monitors ?? [],
      replicas: this.#options.replicas ?? 1,
      streams: channels.map((channel) => this.#stream(channel)),
    });
  }

  async ping(): Promise<void> {
    await this.#call('*', 'ping', () => this.#connection.manager.getAccountInfo());
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await this.#connection.nats.close();
  }

  #stream(channel: string): string {
    return `${this.#prefix}_${channel}`;
  }

  #subject(channel: string, subject: string): string {
    return `${this.#prefix}.${channel}.${subject}`;
  }

  #streamOf(channel: string): ChannelStream {
    return {
      channel,
      stream: this.#stream(channel),
      subjectPrefix: `${this.#prefix}.${channel}.`,
      connection: this.#connection,
      runtime: this.#runtime,
      logger: this.#options.logger,
      state: () => this.state(channel),
    };
  }

  async #call<T>(channel: string, what: string, act: () => Promise<T>): Promise<T> {
    try {
      return await act();
    } catch (error) {
      throw asWalError(error, channel, what);
    }
  }
}
