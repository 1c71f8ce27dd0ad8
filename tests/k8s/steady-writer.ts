/**
 * A writer of 20 rows a second, each sent at its time whatever became of those before and tried again until it is acknowledged. The longest
 * time from first try to acknowledgement is the write unavailability that a client sees; at the end every acknowledged row must be there.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { DataType, MilvusClient } from '@zilliz/milvus2-sdk-node';
import { OWN_CONNECTION } from '../support/own-connection.ts';

const PERIOD_MS = 50;
const CALL_MS = 2_000;
const RETRY_MS = 100;
const GIVE_UP_MS = 120_000;
const DIM = 4;
/** Calls that time out one after the other before the connection is made anew: its proxy may be out of reach without a word. */
const TIMEOUTS_TO_RECONNECT = 2;

interface Reply {
  readonly error_code?: unknown;
  readonly reason?: string;
  readonly code?: number;
  readonly retriable?: boolean;
}

export interface WriterReport {
  readonly sent: number;
  readonly acknowledged: number;
  /** Longest wait for an acknowledgement, ms. */
  readonly unavailableMs: number;
  /** Calls answered with an error that says it is not retriable, with their words. */
  readonly refused: readonly string[];
  /** Retriable errors, by their words. */
  readonly retried: ReadonlyMap<string, number>;
  /** Acknowledged rows that are not there, or not once. */
  readonly wrong: number;
}

export class SteadyWriter {
  readonly #address: () => Promise<string>;
  readonly #collection: string;
  #client: MilvusClient | undefined;
  #timeouts = 0;
  #connecting: Promise<void> | undefined;
  #running = true;
  #loop: Promise<void> = Promise.resolve();
  readonly #pending = new Set<Promise<void>>();
  readonly #acknowledged = new Set<number>();
  readonly #refused: string[] = [];
  readonly #retried = new Map<string, number>();
  #sent = 0;
  #worst = 0;

  constructor(address: () => Promise<string>, collection: string) {
    this.#address = address;
    this.#collection = collection;
  }

  /** Makes the collection and begins. */
  async start(): Promise<void> {
    await this.#connect();
    const created = await this.#required().createCollection({
      collection_name: this.#collection,
      shards_num: 4,
      fields: [
        { name: 'id', data_type: DataType.Int64, is_primary_key: true },
        { name: 'vector', data_type: DataType.FloatVector, dim: DIM },
      ],
      index_params: [{ field_name: 'vector', index_type: 'FLAT', metric_type: 'L2' }],
    });
    if (created.error_code !== 'Success') throw new Error(`create ${this.#collection}: ${created.reason}`);
    const loaded = await this.#required().loadCollectionSync({ collection_name: this.#collection });
    if (loaded.error_code !== 'Success') throw new Error(`load ${this.#collection}: ${loaded.reason}`);
    this.#loop = this.#write();
  }

  /** The worst wait since the last call of this, ms; waits still under way count. */
  takeWorst(): number {
    const worst = this.#worst;
    this.#worst = 0;
    return Math.round(worst);
  }

  /** To where clients shall connect now. */
  async reconnect(): Promise<void> {
    const before = this.#client;
    await this.#connect();
    // Calls under way end by themselves.
    setTimeout(() => void before?.closeConnection().catch(() => undefined), CALL_MS).unref();
  }

  async stop(): Promise<WriterReport> {
    this.#running = false;
    await this.#loop;
    await Promise.all(this.#pending);
    const wrong = await this.#check();
    await this.#required()
      .dropCollection({ collection_name: this.#collection })
      .catch(() => undefined);
    await this.#client?.closeConnection().catch(() => undefined);
    return {
      sent: this.#sent,
      acknowledged: this.#acknowledged.size,
      unavailableMs: Math.round(this.#worst),
      refused: this.#refused,
      retried: this.#retried,
      wrong,
    };
  }

  async #write(): Promise<void> {
    const start = performance.now();
    while (this.#running) {
      const id = this.#sent++;
      const one = this.#writeOne(id).finally(() => this.#pending.delete(one));
      this.#pending.add(one);
      await sleep(Math.max(0, start + this.#sent * PERIOD_MS - performance.now()));
    }
  }

  async #writeOne(id: number): Promise<void> {
    const start = performance.now();
    for (;;) {
      const client = this.#required();
      let words: string;
      try {
        const reply = await client.upsert({
          collection_name: this.#collection,
          data: [{ id, vector: [id % 100, 1, 2, 3] }],
          timeout: CALL_MS,
        });
        const status = reply.status as Reply;
        if (status.error_code === 'Success') {
          this.#timeouts = 0;
          this.#acknowledged.add(id);
          this.#worst = Math.max(this.#worst, performance.now() - start);
          return;
        }
        words = String(status.reason);
        if (status.retriable === false) {
          this.#refused.push(`${words} (code ${status.code})`);
          return;
        }
      } catch (error) {
        words = error instanceof Error ? error.message : String(error);
        if (/DEADLINE|UNAVAILABLE/i.test(words)) this.#timedOut(client);
      }
      const short = words
        .replace(/[0-9a-f.:-]{6,}/g, '…')
        .replace(/exceeded after.*|Deadline ex.*/, 'deadline exceeded')
        .slice(0, 90);
      this.#retried.set(short, (this.#retried.get(short) ?? 0) + 1);
      if (performance.now() - start > GIVE_UP_MS) {
        this.#refused.push(`given up after ${GIVE_UP_MS} ms: ${words}`);
        return;
      }
      await sleep(RETRY_MS);
      this.#worst = Math.max(this.#worst, performance.now() - start);
    }
  }

  /** One at a time: hundreds of writes that wait must not each look for an address (a process each time) and make a client anew. */
  #timedOut(client: MilvusClient): void {
    if (this.#connecting || client !== this.#client || ++this.#timeouts < TIMEOUTS_TO_RECONNECT) return;
    this.#timeouts = 0;
    this.#connecting = this.#connect()
      .then(
        () => client.closeConnection(),
        // The old connection stays; the next timeouts come back here.
        (error) => console.log(`steady writer: no new address: ${error instanceof Error ? error.message : String(error)}`),
      )
      .catch(() => undefined)
      .then(() => {
        this.#connecting = undefined;
      });
  }

  async #connect(): Promise<void> {
    const client = new MilvusClient({
      address: await this.#address(),
      timeout: CALL_MS,
      maxRetries: 0,
      logLevel: 'error',
      channelOptions: OWN_CONNECTION,
    } as never);
    client.connectPromise.catch(() => undefined);
    this.#client = client;
  }

  #required(): MilvusClient {
    if (!this.#client) throw new Error('not connected');
    return this.#client;
  }

  async #check(): Promise<number> {
    const PAGE = 10_000;
    const seen = new Map<number, number>();
    for (let from = 0; from < this.#sent; from += PAGE) {
      const reply = await this.#required().query({
        collection_name: this.#collection,
        filter: `id >= ${from} and id < ${from + PAGE}`,
        output_fields: ['id'],
        limit: PAGE,
        timeout: 60_000,
      } as never);
      if (reply.status.error_code !== 'Success') throw new Error(`reading ${this.#collection} back: ${reply.status.reason}`);
      for (const row of reply.data) seen.set(Number(row['id']), (seen.get(Number(row['id'])) ?? 0) + 1);
    }
    let wrong = 0;
    for (const id of this.#acknowledged) if (seen.get(id) !== 1) wrong++;
    return wrong;
  }
}
