/** What a write answered. */
export interface WriteResult {
  readonly ts: number;
  readonly sequence: number;
}

interface Kept extends WriteResult {
  readonly atMs: number;
}

/**
 * Answers of the writes of one shard by request id, so that a repeat gets the first one's. Kept while the write is above the checkpoint (the
 * replay rebuilds those) and for the repeat window; of those below the checkpoint at most `maxRepeats`, the oldest go first.
 */
export class RepeatResults {
  readonly #kept = new Map<string, Kept>();
  readonly #windowMs: number;
  readonly #maxRepeats: number;

  constructor(windowMs: number, maxRepeats: number) {
    this.#windowMs = windowMs;
    this.#maxRepeats = maxRepeats;
  }

  get size(): number {
    return this.#kept.size;
  }

  get(requestId: string): WriteResult | undefined {
    return this.#kept.get(requestId);
  }

  /** In log order. An empty id is nobody's. */
  add(requestId: string, result: WriteResult, nowMs: number): void {
    if (requestId === '' || this.#kept.has(requestId)) return;
    this.#kept.set(requestId, { ...result, atMs: nowMs });
  }

  /** Forgets what may be forgotten now that everything up to `checkpoint` is flushed. */
  sweep(checkpoint: number, nowMs: number): void {
    let surplus = this.#kept.size - this.#maxRepeats;
    for (const [requestId, { sequence, atMs }] of this.#kept) {
      if (sequence > checkpoint || (nowMs - atMs < this.#windowMs && surplus <= 0)) return;
      this.#kept.delete(requestId);
      surplus--;
    }
  }
}
