import { asCairnError, type Logger, type Runtime, type TimerHandle, timestampMs } from '@cairn/base';
import { keys } from '@cairn/catalog';
import { type MetaStore, scan } from '@cairn/meta';
import { SegmentRecord, SegmentState } from '@cairn/proto/cairn/meta';
import type { HeldShard } from './held-shard.ts';

/** Time between two looks. */
const SWEEP_MS = 60_000;
/** Replaced segments stay for so long: their owner may read them until it has what replaced them. */
const REPLACED_KEPT_MS = 10 * 60_000;

export interface HeldSweeperOptions {
  readonly meta: MetaStore;
  readonly runtime: Runtime;
  readonly logger: Logger;
  /** Shards that are held now. */
  shards(): Iterable<HeldShard>;
  release(vchannel: string, segmentIds: readonly number[]): Promise<unknown>;
}

/**
 * Lets go of what no owner will release any more. Owners release what they had loaded; but an owner that lost its channel leaves everything to the
 * next one, which knows nothing of a collection that was released, or of segments that were replaced, in between. A segment that is let go too
 * early costs a second load: its owner is told that it is not here.
 */
export class HeldSweeper {
  readonly #options: HeldSweeperOptions;
  #timer: TimerHandle | undefined;
  #stopped = false;

  constructor(options: HeldSweeperOptions) {
    this.#options = options;
  }

  start(): void {
    const { runtime, logger } = this.#options;
    if (this.#stopped) return;
    this.#timer = runtime.after(SWEEP_MS, () => {
      this.sweep()
        .catch((error: unknown) => logger.warn({ error: asCairnError(error) }, 'what is loaded in vain could not be found out'))
        .finally(() => this.start());
    });
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
  }

  /** One look at everything that is held. */
  async sweep(): Promise<void> {
    const byCollection = Map.groupBy(this.#options.shards(), (shard) => shard.collectionId);
    for (const [collectionId, shards] of byCollection) {
      if (this.#stopped) return;
      // 0: its first load is under way.
      if (collectionId > 0) await this.#sweepCollection(collectionId, shards);
    }
  }

  async #sweepCollection(collectionId: number, shards: readonly HeldShard[]): Promise<void> {
    const { meta, release, logger } = this.#options;
    // What is held before the records are read: a segment that is loaded meanwhile is not judged.
    const held = shards.map((shard) => ({ vchannel: shard.vchannel, ids: shard.segmentIds }));
    if ((await meta.get(keys.load(collectionId))) === undefined) {
      for (const { vchannel, ids } of held) {
        logger.info({ vchannel, segments: ids.length }, 'a shard of a collection that is not loaded any more is let go');
        await release(vchannel, []);
      }
      return;
    }
    const needed = await this.#needed(collectionId);
    for (const { vchannel, ids } of held) {
      const vain = ids.filter((id) => !needed.has(id));
      if (vain.length === 0) continue;
      logger.info({ vchannel, segments: vain }, 'segments that were replaced or dropped are let go');
      await release(vchannel, vain);
    }
  }

  /** Segments that somebody may read. */
  async #needed(collectionId: number): Promise<Set<number>> {
    const { meta, runtime } = this.#options;
    const needed = new Set<number>();
    const replacedSince = runtime.now() - REPLACED_KEPT_MS;
    for await (const page of scan(meta, keys.segments(collectionId))) {
      for (const { value } of page) {
        const record = SegmentRecord.decode(value);
        if (record.state === SegmentState.SEGMENT_SEALED || timestampMs(record.droppedTs) > replacedSince) needed.add(record.id);
      }
    }
    return needed;
  }
}
