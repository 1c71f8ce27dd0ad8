/**
 * Wal: ordered, durable, fenced logs. A channel is one log (one JetStream stream; one key range of the embedded store). Sequence numbers are
 * safe integers, start at 1, have no holes, and are shared by all subjects of the channel. Tenants: JetStream, LMDB, memory with faults.
 */

/** A record as the store keeps it. */
export interface StoredRecord {
  readonly sequence: number;
  /** Part of the channel that readers can follow alone, e.g. `ins.<shard>`; letters, digits, `.`, `_`, `-`. */
  readonly subject: string;
  readonly bytes: Uint8Array;
}

export interface WalState {
  /** First sequence still kept; lastSequence + 1 when the channel is empty. */
  readonly firstSequence: number;
  /** 0 when nothing was ever appended. */
  readonly lastSequence: number;
}

export interface WalStore {
  /** Creates the channel if it is not there. */
  ensureChannel(channel: string): Promise<void>;
  deleteChannel(channel: string): Promise<void>;
  listChannels(): Promise<string[]>;
  state(channel: string): Promise<WalState>;
  /**
   * Appends when the channel's last sequence is exactly `expectedLast`, else fails with WrongTailError (JetStream 10071). Durable when it
   * resolves. May be called again before the first resolved, with consecutive expectations (pipelining): order is kept, and the failure of one
   * fails those behind it. StoreUnavailable: unknown whether it was written.
   */
  append(channel: string, subject: string, bytes: Uint8Array, expectedLast: number): Promise<number>;
  /** Records from `from` up to `to` (inclusive; the tail at the call when absent), optionally of some subjects alone. */
  read(channel: string, options: { readonly from: number; readonly to?: number; readonly subjects?: readonly string[]; readonly signal?: AbortSignal }): AsyncIterable<readonly StoredRecord[]>;
  /**
   * Follows one subject from `from` on, for ever, in order, each record once, across reconnects. When records from `from` on were trimmed
   * away, fails with TrimmedError: the follower must reload from elsewhere, never skip.
   */
  follow(channel: string, options: { readonly from: number; readonly subject: string; readonly signal: AbortSignal }): AsyncIterable<readonly StoredRecord[]>;
  /** Forgets records before `before`. Never forgets later ones. */
  trim(channel: string, before: number): Promise<void>;
  /** Largest `bytes` of one record. */
  readonly maxRecordBytes: number;
  /** Problems of the server's configuration that cost durability (sync interval, replicas, version), in words; empty when all is well. */
  check(): Promise<string[]>;
  ping(): Promise<void>;
  close(): Promise<void>;
}
