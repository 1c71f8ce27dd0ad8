import type { Deletes } from '@cairn/segment';

/** Deletes of one WAL record. */
export interface TailDelete {
  /** Of its channel. */
  readonly sequence: number;
  /** 0: all partitions of the shard. */
  readonly partitionId: number;
  readonly deletes: Deletes;
  readonly bytes: number;
}

/**
 * Deletes of a shard that came from the WAL and may not be in delta logs yet. A segment that is loaded later gets them from here; what the
 * shard's checkpoint has passed is forgotten.
 */
export class DeleteHistory {
  #entries: TailDelete[] = [];
  #base: number;
  #bytes = 0;

  /** `base`: every delete at or before this sequence is in delta logs. */
  constructor(base: number) {
    this.#base = base;
  }

  /** Deletes at or before it are not here: they come from delta logs. */
  get base(): number {
    return this.#base;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** In order of sequence. */
  add(entries: readonly TailDelete[]): void {
    for (const entry of entries) {
      this.#entries.push(entry);
      this.#bytes += entry.bytes;
    }
  }

  after(sequence: number): readonly TailDelete[] {
    return this.#entries.filter((entry) => entry.sequence > sequence);
  }

  /** Forgets what is at or before the sequence; the base moves there and never back. */
  forget(upTo: number): void {
    if (upTo <= this.#base) return;
    this.#base = upTo;
    this.#entries = this.#entries.filter((entry) => entry.sequence > upTo);
    this.#bytes = this.#entries.reduce((sum, entry) => sum + entry.bytes, 0);
  }
}
