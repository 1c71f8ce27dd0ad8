/** Memory in which a process keeps vector columns whole, so that hits of indexes over codes are scored from there. Beyond it they are read row by row. */
export class VectorMemory {
  readonly #limitBytes: number;
  #used = 0;

  constructor(limitBytes: number) {
    this.#limitBytes = limitBytes;
  }

  get usedBytes(): number {
    return this.#used;
  }

  /** Whether so many bytes more may be kept; if so they count. */
  take(bytes: number): boolean {
    if (this.#used + bytes > this.#limitBytes) return false;
    this.#used += bytes;
    return true;
  }

  /** Counts bytes that are kept whatever the limit: an exact search reads whole columns. */
  add(bytes: number): void {
    this.#used += bytes;
  }

  give(bytes: number): void {
    this.#used -= bytes;
  }
}
