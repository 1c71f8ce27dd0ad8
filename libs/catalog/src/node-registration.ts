import {
  asCairnError,
  CairnError,
  type Logger,
  PROTOCOL,
  type ProtocolRange,
  protocolOf,
  type Runtime,
  requireProtocol,
  retry,
  type Service,
} from '@cairn/base';
import { type Lease, type MetaStore, scan } from '@cairn/meta';
import { NodeRecord } from '@cairn/proto/cairn/meta';
import { keys } from './keys.ts';
import { putRecord } from './records.ts';

export interface NodeRegistrationOptions {
  readonly meta: MetaStore;
  readonly runtime: Runtime;
  readonly logger: Logger;
  readonly ttlMs: number;
  /** What others see; `startedMs` and `version` are filled in when left out. */
  readonly record: Pick<NodeRecord, 'id' | 'role' | 'address' | 'slots'> & Partial<NodeRecord>;
  /** Versions that this node speaks; default: this program's. */
  readonly protocol?: ProtocolRange;
}

/** How long the key of an earlier process under the same id is waited for, in lives of a lease. */
const WAIT_LEASES = 3;
const POLL_MS = 100;

/** NodeNotMatch when a living node, of whatever role, speaks no version of the inner protocol that is spoken here. */
export async function requireCompatibleNodes(meta: MetaStore, protocol: ProtocolRange): Promise<void> {
  for await (const page of scan(meta, keys.nodes)) {
    for (const { key, value } of page) {
      let record: NodeRecord;
      try {
        record = NodeRecord.decode(value);
      } catch (error) {
        throw new CairnError('NodeNotMatch', `the record of node ${key} cannot be read`, { cause: error });
      }
      requireProtocol(protocol, protocolOf(record), `node ${key.slice(keys.nodes.length)}`);
    }
  }
}

/**
 * Says under `node/<role>/<id>` that this process lives, as long as its lease does. A lost registration is not made again: others may have
 * taken over what this process owned, so it must step down and start anew.
 */
export class NodeRegistration implements Service {
  readonly name = 'node-registration';
  readonly #options: NodeRegistrationOptions;
  readonly #lost = new AbortController();
  #lease: Lease | undefined;
  #record: NodeRecord | undefined;
  #createRevision = 0;
  #stopped = false;

  constructor(options: NodeRegistrationOptions) {
    this.#options = options;
  }

  get key(): string {
    return keys.node(this.#options.record.role, this.#options.record.id);
  }

  /** Aborts when the store says that the lease has ended, also by stop(); not while it cannot be asked. */
  get lost(): AbortSignal {
    return this.#lost.signal;
  }

  /** Monotonic ms until which this process certainly counts as living; 0 before start and after the loss. */
  validUntil(): number {
    return this.#lease?.validUntil() ?? 0;
  }

  /** Waits for the store, and for the key of an earlier process under this id to run out: every life of a node has its own createRevision. */
  async start(): Promise<void> {
    const { runtime, logger, ttlMs } = this.#options;
    const policy = {
      attempts: Number.POSITIVE_INFINITY,
      firstDelayMs: POLL_MS,
      maxDelayMs: 1000,
      onRetry: (error: unknown) => logger.warn({ error, key: this.key }, 'node cannot register yet, trying again'),
    };
    const deadline = runtime.monotonic() + WAIT_LEASES * Math.max(ttlMs, 2000);
    for (;;) {
      if (await retry(runtime, policy, () => this.#register(), this.#lost.signal)) return;
      if (runtime.monotonic() > deadline) throw new CairnError('NodeNotMatch', `node ${this.key} is registered by another living process`);
      await runtime.sleep(POLL_MS, this.#lost.signal);
    }
  }

  /** Deletes the key, so that others need not wait for the lease to run out. */
  async stop(): Promise<void> {
    if (this.#stopped) return;
    this.#stopped = true;
    this.#lost.abort(new CairnError('Cancelled', `node ${this.key} stops`));
    await this.#lease
      ?.revoke()
      .catch((error) => this.#options.logger.warn({ error: asCairnError(error), key: this.key }, 'node key could not be deleted'));
  }

  /** Says that this node will end: it gets nothing new, and what it has moves to others. One try; a lost registration changes nothing. */
  async drain(): Promise<void> {
    if (!this.#lease || !this.#record || this.#lost.signal.aborted) return;
    const record: NodeRecord = { ...this.#record, draining: true };
    await this.#options.meta.txn({
      if: [{ kind: 'createRevision', key: this.key, equals: this.#createRevision }],
      then: [putRecord(this.key, NodeRecord, record, this.#lease.id)],
    });
  }

  async #register(): Promise<boolean> {
    const { meta, runtime, ttlMs, logger, record } = this.#options;
    const { protocol = PROTOCOL } = this.#options;
    await requireCompatibleNodes(meta, protocol);
    // What a node does is guarded by the end of its lease (reads), by the fence of the log (writes) and by compares (commits): it need not step down while
    // the store is away, and all of them at once would, each to wait for the others' leases afterwards.
    const lease = await meta.grantLease(ttlMs, { ridesOutages: true });
    const value = NodeRecord.fromPartial({ startedMs: runtime.now(), protocolMin: protocol.min, protocolMax: protocol.max, ...record });
    try {
      const result = await meta.txn({ if: [{ kind: 'missing', key: this.key }], then: [putRecord(this.key, NodeRecord, value, lease.id)] });
      if (result.succeeded && !this.#stopped) {
        this.#lease = lease;
        this.#record = value;
        this.#createRevision = result.revision;
        const onLost = () => {
          if (this.#stopped) return;
          logger.error({ key: this.key }, 'node lost its lease and steps down');
          this.#lost.abort(lease.lost.reason);
        };
        if (lease.lost.aborted) onLost();
        else lease.lost.addEventListener('abort', onLost, { once: true });
        return true;
      }
    } catch (error) {
      // It may have been written: its lease must not live on, or the next try would wait for this one.
      await lease.revoke().catch(() => undefined);
      throw error;
    }
    await lease.revoke();
    return false;
  }
}
