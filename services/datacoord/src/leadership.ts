import { asCairnError, type Logger, type Runtime, retry, type Service } from '@cairn/base';
import { keys } from '@cairn/catalog';
import { createElection, type Leadership, type MetaStore } from '@cairn/meta';
import { LeaderRecord } from '@cairn/proto/cairn/meta';

/** What runs while this node leads. */
export interface Term {
  /** Resolves when it serves, or has failed to (then `over` settles). Never rejects. */
  start(): Promise<void>;
  /** Ends everything at once; resolves when it has ended. */
  stop(reason: string): Promise<void>;
  /** Settles when the term cannot go on (deposed, or a failure that only a new term can cure). */
  readonly over: Promise<string>;
}

export interface LeadershipOptions {
  readonly meta: MetaStore;
  readonly runtime: Runtime;
  readonly logger: Logger;
  readonly nodeId: string;
  readonly address: string;
  readonly leaseTtlMs: number;
  /** Makes the term of a leadership that was just won. */
  readonly begin: (leadership: Leadership) => Term;
}

/** Pause before the next campaign after a term that failed, so that a broken store is not hammered. */
const AFTER_FAILURE_MS = 500;
const RESIGN = { attempts: 5, firstDelayMs: 20, maxDelayMs: 500 };

/** Campaigns for ever: leads, and when leadership is lost stops everything at once and campaigns again. */
export class LeadershipCampaign implements Service {
  readonly name = 'leadership';
  readonly #options: LeadershipOptions;
  readonly #stop = new AbortController();
  #running: Promise<void> | undefined;

  constructor(options: LeadershipOptions) {
    this.#options = options;
  }

  async start(): Promise<void> {
    this.#running = this.#run();
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { meta, runtime, logger, nodeId, address, leaseTtlMs } = this.#options;
    const election = createElection(meta, runtime, keys.leader, leaseTtlMs);
    const value = LeaderRecord.encode({ nodeId, address, epoch: 0 }).finish();
    while (!this.#stop.signal.aborted) {
      try {
        const leadership = await election.campaign(value, this.#stop.signal);
        const reason = await this.#lead(leadership);
        logger.info({ nodeId, reason }, 'no longer the leading coordinator');
      } catch (error) {
        if (this.#stop.signal.aborted) return;
        logger.warn({ error, nodeId }, 'the term of this coordinator failed; campaigning again');
      }
      await runtime.sleep(AFTER_FAILURE_MS, this.#stop.signal).catch(() => undefined);
    }
  }

  async #lead(leadership: Leadership): Promise<string> {
    const { begin, logger, runtime } = this.#options;
    const ended = Promise.withResolvers<string>();
    const onLost = () => ended.resolve('leadership was lost');
    const onStop = () => ended.resolve('the service stops');
    leadership.lost.addEventListener('abort', onLost, { once: true });
    this.#stop.signal.addEventListener('abort', onStop, { once: true });
    const term = begin(leadership);
    let reason = 'its start failed';
    try {
      if (leadership.lost.aborted) onLost();
      if (this.#stop.signal.aborted) onStop();
      void term.start();
      reason = await Promise.race([ended.promise, term.over]);
      return reason;
    } finally {
      leadership.lost.removeEventListener('abort', onLost);
      this.#stop.signal.removeEventListener('abort', onStop);
      await term.stop(reason);
      // A lease that is not revoked keeps everybody waiting, this node too.
      await retry(runtime, RESIGN, () => leadership.resign()).catch((error: unknown) =>
        logger.warn({ error: asCairnError(error).message }, 'resigning failed; the lease will end by itself'),
      );
    }
  }
}
