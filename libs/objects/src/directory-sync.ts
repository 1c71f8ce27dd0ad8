import { mkdir, open } from 'node:fs/promises';
import { dirname } from 'node:path';

/** Directories remembered as durable; more than a store has open prefixes. */
const KNOWN_LIMIT = 100_000;

/**
 * Makes directories and their entries durable. A name in a directory survives a power cut only once the directory was synced; calls that wait
 * for the same directory share one sync.
 */
export class DirectorySync {
  readonly #known = new Map<string, Promise<void>>();
  readonly #running = new Map<string, Promise<void>>();
  readonly #next = new Map<string, Promise<void>>();

  /** Makes `directory` and its parents down from `root`; each is durable in its parent when this resolves. */
  ensure(directory: string, root: string): Promise<void> {
    const known = this.#known.get(directory);
    if (known) return known;
    const made = this.#make(directory, root);
    if (this.#known.size >= KNOWN_LIMIT) this.#known.clear();
    this.#known.set(directory, made);
    made.catch(() => this.#known.delete(directory));
    return made;
  }

  /** The directory, or one above it, was removed: make them again next time. */
  forget(directory: string): void {
    for (let at = directory; this.#known.delete(at) || at === directory; at = dirname(at)) if (at === dirname(at)) return;
  }

  /** Syncs a directory. A sync that began before the call does not count for it. */
  sync(directory: string): Promise<void> {
    const waiting = this.#next.get(directory);
    if (waiting) return waiting;
    const before = this.#running.get(directory);
    const mine = (before ?? Promise.resolve())
      .catch(() => undefined)
      .then(async () => {
        this.#next.delete(directory);
        this.#running.set(directory, mine);
        try {
          const handle = await open(directory, 'r');
          try {
            await handle.sync();
          } finally {
            await handle.close();
          }
        } finally {
          if (this.#running.get(directory) === mine) this.#running.delete(directory);
        }
      });
    this.#next.set(directory, mine);
    return mine;
  }

  async #make(directory: string, root: string): Promise<void> {
    if (directory === root) {
      await mkdir(root, { recursive: true });
      return;
    }
    const parent = dirname(directory);
    await this.ensure(parent, root);
    try {
      await mkdir(directory);
    } catch (error) {
      // Another put made it, or an earlier run did: its entry may still not be on disk.
      if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error;
    }
    await this.sync(parent);
  }
}
