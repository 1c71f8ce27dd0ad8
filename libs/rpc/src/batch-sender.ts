/** What of a stream a batch is written to: `done` comes when the next one may follow. */
export type BatchSink = (bytes: Buffer, done: () => void) => void;

interface Weighed<T> {
  readonly item: T;
  readonly bytes: number;
}

/** A batch takes no more when it has so many bytes; one item may be larger. */
const MAX_BATCH_BYTES = 1 << 20;

/**
 * Puts items that are ready together into one message of a stream: those of one turn of the event loop, and those that come while the message before
 * them is still being taken.
 */
export class BatchSender<T> {
  readonly #write: BatchSink;
  readonly #encode: (items: T[]) => Buffer;
  #pending: Weighed<T>[] = [];
  #pendingBytes = 0;
  #busy = false;

  constructor(write: BatchSink, encode: (items: T[]) => Buffer) {
    this.#write = write;
    this.#encode = encode;
  }

  /** Bytes that wait to be written. */
  get pendingBytes(): number {
    return this.#pendingBytes;
  }

  /** Everything has been written. */
  get idle(): boolean {
    return !this.#busy;
  }

  /** `bytes`: about what the item weighs. */
  push(item: T, bytes: number): void {
    this.#pending.push({ item, bytes });
    this.#pendingBytes += bytes;
    if (this.#busy) return;
    this.#busy = true;
    process.nextTick(this.#flush);
  }

  /** What waits is not sent any more. */
  clear(): void {
    this.#pending = [];
    this.#pendingBytes = 0;
  }

  readonly #flush = (): void => {
    let batch = this.#pending;
    if (batch.length === 0) {
      this.#busy = false;
      return;
    }
    if (this.#pendingBytes <= MAX_BATCH_BYTES) {
      this.clear();
    } else {
      let end = 0;
      let bytes = 0;
      do bytes += batch[end++].bytes;
      while (end < batch.length && bytes + batch[end].bytes <= MAX_BATCH_BYTES);
      this.#pending = batch.slice(end);
      this.#pendingBytes -= bytes;
      batch = batch.slice(0, end);
    }
    this.#write(this.#encode(batch.map(({ item }) => item)), this.#flush);
  };
}
