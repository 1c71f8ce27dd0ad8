/**
 * Owner's side of a channel: take-over by fence, appends with retry, and the end of ownership. The rules (architecture.md, "Taking over a
 * channel") are here once, for data channels and the control channel alike.
 */

/** One application record inside the WAL envelope (epoch, index, CRC). */
export interface WalRecord {
  readonly sequence: number;
  readonly subject: string;
  readonly epoch: number;
  /** Count of the records that its epoch wrote, from 0 (the fence). */
  readonly index: number;
  readonly kind: 'fence' | 'data';
  readonly payload: Uint8Array;
}

export interface AppendEntry {
  readonly subject: string;
  readonly payload: Uint8Array;
}

export interface ChannelWriter {
  readonly channel: string;
  readonly epoch: number;
  /** Sequence of this owner's own fence. Everything before it may be replayed; nothing but this owner's records comes after it. */
  readonly fenceSequence: number;
  /** Last sequence known to be written by this owner (or the fence). */
  readonly lastSequence: number;
  /** Bytes a payload may have, so that its record fits. */
  readonly maxPayloadBytes: number;
  /**
   * Appends the entries contiguously, in order; resolves with the sequence of the last one when all are durable. Calls are ordered among each
   * other. On a wrong expectation or an unknown outcome the writer reads the stream from its last known sequence, counts its own records (by
   * epoch and index) as written and goes on; a higher epoch there deposes it. DeposedError: this owner's days are over and none of the
   * entries that follow will ever be written.
   */
  append(entries: readonly AppendEntry[]): Promise<number>;
  /** Resolves when no append is in flight and all outcomes are known. */
  drain(): Promise<void>;
  /** Records from `from` up to this owner's fence, or to `to`. */
  replay(from: number, to?: number): AsyncIterable<readonly WalRecord[]>;
  /** Aborts when a higher epoch was seen. */
  readonly deposed: AbortSignal;
  close(): void;
}
