interface Mark {
  readonly sequence: number;
  /** Bytes of the log up to and with this sequence, since the meter began. */
  readonly bytes: number;
  readonly atMs: number;
}

/** One mark stands for at most this many bytes: enough to steer flush and trim by. */
const MARK_BYTES = 64 * 1024;

/** How many bytes of a channel's log lie behind a sequence, and since when: what flush by replay length and trim go by. */
export class LogMeter {
  #marks: Mark[] = [];
  #bytes = 0;

  /** In log order. */
  add(sequence: number, bytes: number, nowMs: number): void {
    this.#bytes += bytes;
    const before = this.#marks.at(-2);
    // The last mark moves up until it stands for enough.
    if (before !== undefined && this.#bytes - before.bytes < MARK_BYTES) this.#marks.pop();
    this.#marks.push({ sequence, bytes: this.#bytes, atMs: nowMs });
  }

  /** Bytes of the records after `sequence`, at most one mark too many. */
  bytesAfter(sequence: number): number {
    const at = this.#lastAtOrBelow(sequence);
    return this.#bytes - (this.#marks[at]?.bytes ?? 0);
  }

  /**
   * First sequence to keep when everything up to `checkpoint` is flushed: what is older than `keepMs` goes, and of the rest `keepBytes` below the
   * checkpoint stay.
   */
  keepFrom(checkpoint: number, keepBytes: number, keepMs: number, nowMs: number): number {
    const last = this.#lastAtOrBelow(checkpoint);
    if (last < 0) return 0;
    const edge = (this.#marks[last]?.bytes ?? 0) - keepBytes;
    let from = 0;
    for (let at = last; at >= 0; at--) {
      const mark = this.#marks[at];
      if (mark && (mark.bytes <= edge || nowMs - mark.atMs > keepMs)) {
        from = mark.sequence + 1;
        break;
      }
    }
    return from;
  }

  /** Forgets marks below a trimmed sequence. */
  trim(before: number): void {
    const at = this.#lastAtOrBelow(before - 1);
    if (at > 0) this.#marks = this.#marks.slice(at);
  }

  #lastAtOrBelow(sequence: number): number {
    let low = 0;
    let high = this.#marks.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#marks[middle]?.sequence ?? 0) <= sequence) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }
}
