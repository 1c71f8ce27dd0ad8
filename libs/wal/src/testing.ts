import type { CairnError, Runtime } from '@cairn/base';
import type { FollowOptions, ReadOptions, StoredRecord, WalState, WalStore } from './wal.ts';
import { storeUnavailable } from './wal-errors.ts';

/** What befalls one call. */
export type WalFault =
  | { readonly kind: 'none'; readonly delayMs?: number }
  /** The caller hears StoreUnavailable; nothing was written. */
  | { readonly kind: 'lost'; readonly delayMs?: number }
  /** It was written, and the caller hears StoreUnavailable. */
  | { readonly kind: 'written but unanswered'; readonly delayMs?: number }
  /** The caller hears StoreUnavailable now; the append reaches the store `lateMs` later, with whatever comes of it. */
  | { readonly kind: 'late'; readonly lateMs: number }
  /** Refused with this error; nothing was written. */
  | { readonly kind: 'refused'; readonly error: CairnError };

export interface WalCall {
  readonly operation: 'append' | 'appendFence' | 'read' | 'state';
  readonly channel: string;
  readonly subject?: string;
  readonly expectedLast?: number;
}

/** Decides the fault of each call, in call order. */
export type WalFaultPlan = (call: WalCall) => WalFault;

/**
 * A store in front of another that has bad days by plan. It may lose an append and still deliver the one pipelined behind it, as a network
 * can.
 */
export class FaultyWalStore implements WalStore {
  readonly #inner: WalStore;
  readonly #runtime: Runtime;
  plan: WalFaultPlan;

  constructor(inner: WalStore, runtime: Runtime, plan: WalFaultPlan = () => ({ kind: 'none' })) {
    this.#inner = inner;
    this.#runtime = runtime;
    this.plan = plan;
  }

  get maxRecordBytes(): number {
    return this.#inner.maxRecordBytes;
  }

  append(channel: string, subject: string, bytes: Uint8Array, expectedLast: number): Promise<number> {
    const call: WalCall = { operation: 'append', channel, subject, expectedLast };
    return this.#befall(call, () => this.#inner.append(channel, subject, bytes, expectedLast));
  }

  appendFence(channel: string, subject: string, bytes: Uint8Array, expectedLast: number): Promise<number> {
    const call: WalCall = { operation: 'appendFence', channel, subject, expectedLast };
    return this.#befall(call, () => this.#inner.appendFence(channel, subject, bytes, expectedLast));
  }

  state(channel: string): Promise<WalState> {
    return this.#befall({ operation: 'state', channel }, () => this.#inner.state(channel));
  }

  async *read(channel: string, options: ReadOptions): AsyncGenerator<readonly StoredRecord[]> {
    await this.#befall({ operation: 'read', channel }, async () => undefined);
    yield* this.#inner.read(channel, options);
  }

  follow(channel: string, options: FollowOptions): AsyncIterable<readonly StoredRecord[]> {
    return this.#inner.follow(channel, options);
  }

  ensureChannel(channel: string): Promise<void> {
    return this.#inner.ensureChannel(channel);
  }

  deleteChannel(channel: string): Promise<void> {
    return this.#inner.deleteChannel(channel);
  }

  listChannels(): Promise<string[]> {
    return this.#inner.listChannels();
  }

  trim(channel: string, before: number): Promise<void> {
    return this.#inner.trim(channel, before);
  }

  check(): Promise<string[]> {
    return this.#inner.check();
  }

  ping(): Promise<void> {
    return this.#inner.ping();
  }

  close(): Promise<void> {
    return this.#inner.close();
  }

  async #befall<T>(call: WalCall, act: () => Promise<T>): Promise<T> {
    const fault = this.plan(call);
    switch (fault.kind) {
      case 'none': {
        if (fault.delayMs !== undefined) await this.#runtime.sleep(fault.delayMs);
        return act();
      }
      case 'lost': {
        if (fault.delayMs !== undefined) await this.#runtime.sleep(fault.delayMs);
        throw storeUnavailable(call.channel, call.operation);
      }
      case 'written but unanswered': {
        if (fault.delayMs !== undefined) await this.#runtime.sleep(fault.delayMs);
        await act();
        throw storeUnavailable(call.channel, call.operation);
      }
      case 'late': {
        // What becomes of it is nobody's business any more: that is the fault.
        void this.#runtime
          .sleep(fault.lateMs)
          .then(act)
          .catch(() => undefined);
        throw storeUnavailable(call.channel, call.operation);
      }
      case 'refused':
        throw fault.error;
    }
  }
}
