/**
 * A reader that asks ten times a second for one row by its key (Strong, so it must see what was acknowledged), whatever became of the questions
 * before. The longest time until an answer is the read unavailability that a client sees; a wrong answer, or an error that is not retriable, counts.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { ConsistencyLevelEnum, MilvusClient } from '@zilliz/milvus2-sdk-node';
import { OWN_CONNECTION } from '../support/own-connection.ts';

const PERIOD_MS = 100;
const CALL_MS = 2_000;
const RETRY_MS = 100;
/** Calls that time out one after the other before the connection is made anew. */
const TIMEOUTS_TO_RECONNECT = 2;
const GIVE_UP_MS = 120_000;

export interface ReaderReport {
  readonly asked: number;
  readonly answered: number;
  readonly refused: readonly string[];
  readonly wrong: readonly string[];
}

export class SteadyReader {
  readonly #address: () => Promise<string>;
  readonly #collection: string;
  #client: MilvusClient | undefined;
  #running = true;
  #loop: Promise<void> = Promise.resolve();
  readonly #pending = new Set<Promise<void>>();
  readonly #refused: string[] = [];
  readonly #wrong: string[] = [];
  #asked = 0;
  #answered = 0;
  #worst = 0;
  #timeouts = 0;
  #reconnecting: Promise<void> | undefined;

  /** `collection` has a row with id 0 and an index on `vector`, of four numbers. */
  constructor(address: () => Promise<string>, collection: string) {
    this.#address = address;
    this.#collection = collection;
  }

  async start(): Promise<void> {
    await this.reconnect();
    this.#loop = this.#ask();
  }

  async reconnect(): Promise<void> {
    const before = this.#client;
    this.#client = new MilvusClient({
      address: await this.#address(),
      timeout: CALL_MS,
      maxRetries: 0,
      logLevel: 'error',
      channelOptions: OWN_CONNECTION,
    } as never);
    this.#client.connectPromise.catch(() => undefined);
    setTimeout(() => void before?.closeConnection().catch(() => undefined), CALL_MS).unref();
  }

  /** The worst wait since the last call of this, ms. */
  takeWorst(): number {
    const worst = this.#worst;
    this.#worst = 0;
    return Math.round(worst);
  }

  async stop(): Promise<ReaderReport> {
    this.#running = false;
    await this.#loop;
    await Promise.all(this.#pending);
    await this.#client?.closeConnection().catch(() => undefined);
    return { asked: this.#asked, answered: this.#answered, refused: this.#refused, wrong: this.#wrong };
  }

  async #ask(): Promise<void> {
    const start = performance.now();
    while (this.#running) {
      const search = this.#asked++ % 2 === 0;
      const one = this.#askOne(search).finally(() => this.#pending.delete(one));
      this.#pending.add(one);
      await sleep(Math.max(0, start + this.#asked * PERIOD_MS - performance.now()));
    }
  }

  /** One at a time: hundreds of questions that wait must not each look for an address (a process each time) and make a client anew. */
  #timedOut(): void {
    if (this.#reconnecting || ++this.#timeouts < TIMEOUTS_TO_RECONNECT) return;
    this.#timeouts = 0;
    this.#reconnecting = this.reconnect()
      .catch(() => undefined)
      .finally(() => {
        this.#reconnecting = undefined;
      });
  }

  async #askOne(search: boolean): Promise<void> {
    const start = performance.now();
    for (;;) {
      const client = this.#client;
      let words: string;
      try {
        const { status, found } = await this.#once(search);
        if (status.error_code === 'Success') {
          this.#timeouts = 0;
          this.#answered++;
          if (found !== 1) this.#wrong.push(`${search ? 'search' : 'query'} found ${found} rows, not 1`);
          this.#worst = Math.max(this.#worst, performance.now() - start);
          return;
        }
        words = `${status.reason} (code ${status.code})`;
        if (status.retriable === false) {
          this.#refused.push(words);
          return;
        }
      } catch (error) {
        words = error instanceof Error ? error.message : String(error);
        if (/DEADLINE|UNAVAILABLE/i.test(words) && client === this.#client) this.#timedOut();
      }
      if (performance.now() - start > GIVE_UP_MS) {
        this.#refused.push(`given up after ${GIVE_UP_MS} ms: ${words}`);
        return;
      }
      await sleep(RETRY_MS);
      this.#worst = Math.max(this.#worst, performance.now() - start);
    }
  }

  async #once(
    search: boolean,
  ): Promise<{ status: { error_code?: unknown; reason?: string; code?: number; retriable?: boolean }; found: number }> {
    if (!this.#client) throw new Error('not connected');
    const common = { collection_name: this.#collection, timeout: CALL_MS, consistency_level: ConsistencyLevelEnum.Strong };
    if (search) {
      const reply = await this.#client.search({ ...common, data: [0, 1, 2, 3], filter: 'id == 0', limit: 1 } as never);
      return { status: reply.status as never, found: (reply.results as unknown[] | undefined)?.length ?? 0 };
    }
    const reply = await this.#client.query({ ...common, filter: 'id == 0', output_fields: ['id'], limit: 2 } as never);
    return { status: reply.status as never, found: reply.data?.length ?? 0 };
  }
}
