import type { Runtime } from '@cairn/base';
import { keys, type NodeRegistration } from '@cairn/catalog';
import { type MetaStore, scan } from '@cairn/meta';
import { NodeRecord } from '@cairn/proto/cairn/meta';

/** Longest a stop is held up by the hand-over of channels, and how long it may go on without any of them moving (no coordinator leads). */
const LONGEST_MS = 20_000;
const PATIENCE_MS = 5_000;
const POLL_MS = 50;
/** How often it is looked whether anyone can take them, and how often in a row the answer may be no. */
const LOOK_MS = 500;
const HOPELESS_LOOKS = 2;

/**
 * The time before a streaming node ends: its node record says so, the coordinator moves its channels to others one after the other, and the node
 * serves each of them until it is asked for it.
 */
export class Drain {
  readonly #meta: MetaStore;
  readonly #runtime: Runtime;
  readonly #registration: NodeRegistration;
  readonly #owned: () => number;

  /** `owned`: channels that the node still has. */
  constructor(parts: { readonly meta: MetaStore; readonly runtime: Runtime }, registration: NodeRegistration, owned: () => number) {
    this.#meta = parts.meta;
    this.#runtime = parts.runtime;
    this.#registration = registration;
    this.#owned = owned;
  }

  /** Resolves when all channels have moved, or waiting for it has no use any more. */
  async run(): Promise<void> {
    const { lost } = this.#registration;
    if (lost.aborted || this.#owned() === 0 || !(await this.#otherNode())) return;
    await this.#registration.drain();
    const startedMs = this.#runtime.monotonic();
    let [left, movedMs, lookedMs, hopeless] = [this.#owned(), startedMs, startedMs, 0];
    while (this.#owned() > 0 && !lost.aborted) {
      const nowMs = this.#runtime.monotonic();
      if (this.#owned() < left) [left, movedMs] = [this.#owned(), nowMs];
      if (nowMs - startedMs > LONGEST_MS || nowMs - movedMs > PATIENCE_MS) return;
      if (nowMs - lookedMs > LOOK_MS) {
        lookedMs = nowMs;
        const hope = (await this.#otherNode()) && (await this.#meta.get(keys.leader)) !== undefined;
        hopeless = hope ? 0 : hopeless + 1;
        if (hopeless >= HOPELESS_LOOKS) return;
      }
      await this.#runtime.sleep(POLL_MS);
    }
  }

  /** There is a streaming node that can take channels. */
  async #otherNode(): Promise<boolean> {
    for await (const page of scan(this.#meta, `${keys.nodes}streaming/`)) {
      for (const { key, value } of page) if (key !== this.#registration.key && !NodeRecord.decode(value).draining) return true;
    }
    return false;
  }
}
