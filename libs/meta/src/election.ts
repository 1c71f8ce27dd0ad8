import type { Runtime } from '@cairn/base';
import type { Compare, Lease, MetaStore } from './meta-store.ts';

/** Leadership of a named election: `holds` is the compare that every transaction of the leader carries, so a deposed one changes nothing. */
export interface Leadership {
  readonly key: string;
  readonly lease: Lease;
  readonly holds: Compare;
  /** Aborts when leadership is lost. */
  readonly lost: AbortSignal;
  resign(): Promise<void>;
}

/** Takes part in an election: waits for its turn, returns when it leads. */
export interface Election {
  /** `value` tells others who leads (an address, say). Rejects with Cancelled when the signal aborts. */
  campaign(value: Uint8Array, signal: AbortSignal): Promise<Leadership>;
}

export type ElectionFactory = (store: MetaStore, runtime: Runtime, key: string, ttlMs: number) => Election;
