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

/** Appends that one writer of a channel may have open at once. */
export const MAX_IN_FLIGHT = 64;

/**
 * Records that a fence takes. Were it one, then of an old owner's appends in flight with expectations t, t + 1, ... the first would fail, for
 * the fence has taken its place at t + 1, and the second would find just the tail that it expects and be written behind the fence. An old
 * owner at tail t has expectations below t + MAX_IN_FLIGHT open, so behind this many records no such append fits, however late it arrives.
 */
export const FENCE_RECORDS = MAX_IN_FLIGHT + 1;

export interface ReadOptions {
  readonly from: number;
  /** Inclusive; the tail at the call when absent. */
  readonly to?: number;
  readonly subjects?: readonly string[];
  readonly signal?: AbortSignal;
}

export interface FollowOptions {
  readonly from: number;
  readonly subject: string;
  readonly signal: AbortSignal;
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
  /**
   * Appends FENCE_RECORDS copies of the record as one atom when the channel's last sequence is exactly `expectedLast`, else fails with
   * WrongTailError. Resolves with the sequence of the last copy. StoreUnavailable: unknown whether it was written.
   */
  appendFence(channel: string, subject: string, bytes: Uint8Array, expectedLast: number): Promise<number>;
  /** Records from `from` up to `to` (inclusive; the tail at the call when absent), optionally of some subjects alone. TrimmedError when the channel begins after `from`. */
  read(channel: string, options: ReadOptions): AsyncIterable<readonly StoredRecord[]>;
  /**
   * Ends quietly when the signal aborts. Follows one subject from `from` on, for ever, in order, each record once, across reconnects. When records from `from` on were trimmed
   * away, fails with TrimmedError: the follower must reload from elsewhere, never skip.
   */
  follow(channel: string, options: FollowOptions): AsyncIterable<readonly StoredRecord[]>;
  /** Forgets records before `before`. Never forgets later ones, nor the last record of all: whoever takes over reads the epoch there. */
  trim(channel: string, before: number): Promise<void>;
  /** Largest `bytes` of one record. */
  readonly maxRecordBytes: number;
  /** Problems of the server's configuration that cost durability (sync interval, replicas, version), in words; empty when all is well. */
  check(): Promise<string[]>;
  ping(): Promise<void>;
  close(): Promise<void>;
}
