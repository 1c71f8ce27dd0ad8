import { type Logger, type Runtime, silentLogger } from '@cairn/base';
import type { ICompare, IKeyValue, IRangeRequest, IRequestOp } from 'etcd3';
import { EtcdClient, type EtcdOptions, rangeEnd } from './etcd-client.ts';
import { EtcdLease } from './etcd-lease.ts';
import { EtcdWatch } from './etcd-watch.ts';
import type {
  Compare,
  Lease,
  LeaseOptions,
  MetaEntry,
  MetaStore,
  Op,
  RangeOptions,
  RangePage,
  Txn,
  TxnResult,
  WatchBatch,
} from './meta-store.ts';
import { RANGE_PAGE_BYTES, RANGE_PAGE_ENTRIES } from './meta-store.ts';
import { checkKey, checkTxn } from './txn-limits.ts';

export type { EtcdOptions } from './etcd-client.ts';

/** Entries asked of etcd at once: with values up to a transaction's limit each the answer stays below the receive limit. */
const ASK_ENTRIES = 32;
const ASK_SMALL_ENTRIES = 1000;
/** Values whose mean is below this may be asked ASK_SMALL_ENTRIES at once. */
const SMALL_VALUE_BYTES = 4096;

/** MetaStore in etcd. */
export class EtcdMetaStore implements MetaStore {
  readonly #client: EtcdClient;
  readonly #prefix: string;
  readonly #logger: Logger;
  readonly #closing = new AbortController();
  readonly #leases = new Set<EtcdLease>();

  /** Connects lazily: a store that is down shows at the first call. */
  constructor(options: EtcdOptions, runtime: Runtime, logger: Logger = silentLogger) {
    this.#client = new EtcdClient(options, runtime);
    this.#prefix = options.prefix ?? '';
    this.#logger = logger;
  }

  async get(key: string): Promise<MetaEntry | undefined> {
    checkKey(key);
    const answer = await this.#client.call(`get ${key}`, true, (options) => this.#client.kv.range({ key: this.#key(key) }, options));
    return answer.kvs.length === 0 ? undefined : this.#entry(answer.kvs[0]);
  }

  async range(options: RangeOptions): Promise<RangePage> {
    const limit = Math.max(1, options.limit ?? RANGE_PAGE_ENTRIES);
    const entries: MetaEntry[] = [];
    let bytes = 0;
    let revision = options.revision;
    let ask = Math.min(limit, ASK_ENTRIES);
    let after = options.after;
    for (;;) {
      const request = this.#rangeRequest(options.prefix, after, Math.min(ask, limit - entries.length), revision);
      const answer = await this.#client.call(`range ${options.prefix}`, true, (call) => this.#client.kv.range(request, call));
      revision ??= Number(answer.header.revision);
      for (const kv of answer.kvs) {
        bytes += kv.value.length;
        if (bytes > RANGE_PAGE_BYTES && entries.length > 0) return { entries, more: true, revision };
        entries.push(this.#entry(kv));
      }
      if (!answer.more || entries.length >= limit) return { entries, more: answer.more, revision };
      after = entries.at(-1)?.key;
      // Unknown values may be as large as a transaction; once the mean is known to be small fewer calls do.
      ask = bytes / entries.length <= SMALL_VALUE_BYTES ? ASK_SMALL_ENTRIES : ASK_ENTRIES;
    }
  }

  async txn(txn: Txn): Promise<TxnResult> {
    checkTxn(txn);
    const request = {
      compare: (txn.if ?? []).map((compare) => this.#compare(compare)),
      success: txn.then.map((op) => this.#op(op)),
      failure: (txn.else ?? []).map((op) => this.#op(op)),
    };
    const answer = await this.#client.call('txn', false, (options) => this.#client.kv.txn(request, options));
    const branch = answer.succeeded ? txn.then : (txn.else ?? []);
    const gets = branch.flatMap((op, index) => {
      if (op.kind !== 'get') return [];
      const kvs = answer.responses[index].response_range.kvs;
      return [kvs.length === 0 ? undefined : this.#entry(kvs[0])];
    });
    return { succeeded: answer.succeeded, revision: Number(answer.header.revision), gets };
  }

  watch(prefix: string, signal: AbortSignal): AsyncGenerator<WatchBatch> {
    const key = this.#key(prefix);
    const watch = new EtcdWatch({
      client: this.#client,
      logger: this.#logger,
      key,
      keyEnd: rangeEnd(key),
      entry: (kv) => this.#entry(kv),
      page: (after, revision) =>
        this.range({ prefix, ...(after === undefined ? {} : { after }), ...(revision === undefined ? {} : { revision }) }),
    });
    return watch.batches(signal, this.#closing.signal);
  }

  async grantLease(ttlMs: number, options: LeaseOptions = {}): Promise<Lease> {
    const lease = await EtcdLease.grant(this.#client, ttlMs, this.#logger, options);
    this.#leases.add(lease);
    lease.lost.addEventListener('abort', () => this.#leases.delete(lease), { once: true });
    return lease;
  }

  async ping(): Promise<void> {
    await this.#client.call('ping', true, (options) => this.#client.kv.range({ key: this.#key('ping'), count_only: true }, options));
  }

  /** Leases are no longer kept alive and run out by themselves; revoke them before when their keys should go at once. */
  async close(): Promise<void> {
    this.#closing.abort();
    for (const lease of [...this.#leases]) lease.abandon();
    this.#client.close();
  }

  #key(key: string): Buffer {
    // etcd takes no empty key; a zero byte is the first there can be.
    return Buffer.from(this.#prefix + key || '\0');
  }

  #entry(kv: IKeyValue): MetaEntry {
    return {
      key: kv.key.toString().slice(this.#prefix.length),
      value: kv.value,
      createRevision: Number(kv.create_revision),
      modRevision: Number(kv.mod_revision),
    };
  }

  #rangeRequest(prefix: string, after: string | undefined, limit: number, revision: number | undefined): IRangeRequest {
    const start = this.#key(prefix);
    const from = after === undefined ? start : Buffer.concat([this.#key(after), Buffer.of(0)]);
    const key = Buffer.compare(from, start) < 0 ? start : from;
    return { key, range_end: rangeEnd(start), limit, ...(revision === undefined ? {} : { revision }) };
  }

  #compare(compare: Compare): ICompare {
    const key = this.#key(compare.key);
    switch (compare.kind) {
      case 'exists':
        return { key, target: 'Create', result: 'Greater', create_revision: 0 };
      case 'missing':
        return { key, target: 'Create', result: 'Equal', create_revision: 0 };
      case 'createRevision':
        return { key, target: 'Create', result: 'Equal', create_revision: compare.equals };
      case 'modRevision':
        return { key, target: 'Mod', result: 'Equal', mod_revision: compare.equals };
      case 'value':
        return { key, target: 'Value', result: 'Equal', value: asBuffer(compare.equals) };
    }
  }

  #op(op: Op): IRequestOp {
    switch (op.kind) {
      case 'put':
        return {
          request_put: { key: this.#key(op.key), value: asBuffer(op.value), ...(op.lease === undefined ? {} : { lease: op.lease }) },
        };
      case 'delete':
        return { request_delete_range: { key: this.#key(op.key) } };
      case 'deletePrefix': {
        const key = this.#key(op.prefix);
        return { request_delete_range: { key, range_end: rangeEnd(key) } };
      }
      case 'get':
        return { request_range: { key: this.#key(op.key) } };
    }
  }
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
