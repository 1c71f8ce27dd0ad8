import type { Logger, Runtime, TimerHandle } from '@cairn/base';
import type { WalStore } from '@cairn/wal';
import type { ChannelLog } from './channel-log.ts';
import type { Flusher } from './flusher.ts';
import type { LogMeter } from './log-meter.ts';
import type { OwnedShards } from './owned-shards.ts';
import type { StreamingSettings } from './settings.ts';
import type { Shard } from './shard.ts';

export interface ChannelKeeperOptions {
  readonly channel: string;
  readonly wal: WalStore;
  readonly shards: OwnedShards;
  readonly flusher: Flusher;
  readonly meter: LogMeter;
  readonly settings: StreamingSettings;
  readonly runtime: Runtime;
  readonly logger: Logger;
  /** Counts the node's unflushed bytes and exports them. */
  growingBytes(): number;
}

/** Keeps a channel in bounds: seals by size, age and length of the log; moves idle checkpoints; trims the log. */
export class ChannelKeeper {
  readonly #options: ChannelKeeperOptions;
  readonly #log: ChannelLog;
  /** First sequence that the log still has. */
  #trimmedTo: number;
  #timer: TimerHandle | undefined;
  #ended = false;

  constructor(options: ChannelKeeperOptions, log: ChannelLog, firstSequence: number) {
    this.#options = options;
    this.#log = log;
    this.#trimmedTo = firstSequence;
  }

  start(): void {
    const { runtime, settings, logger } = this.#options;
    if (this.#ended) return;
    this.#timer = runtime.after(settings.checkIntervalMs, () => {
      this.#round()
        .catch((error: unknown) => {
          if (!this.#ended) logger.warn({ error }, 'housekeeping of a channel failed, it is tried again');
        })
        .finally(() => this.start());
    });
  }

  end(): void {
    this.#ended = true;
    this.#timer?.cancel();
  }

  /** After a write of the shard was applied at `sequence`: seals what has become too large. */
  sealFull(shard: Shard, sequence: number, ts: number): void {
    const { settings, flusher, meter, shards } = this.#options;
    const { bytes, rows } = shard.openSize();
    if (bytes >= settings.segmentMaxBytes || rows >= settings.segmentMaxRows) flusher.seal(shard, sequence, ts);
    let oldest: Shard | undefined;
    for (const other of shards) {
      const since = other.unsealedSince?.sequence;
      if (since !== undefined && since < (oldest?.unsealedSince?.sequence ?? Number.POSITIVE_INFINITY)) oldest = other;
    }
    // Half: a take-over replays what is on its way to the object store too. The shard that holds the log back goes first.
    const first = oldest?.unsealedSince?.sequence;
    if (oldest && first !== undefined && meter.bytesAfter(first - 1) >= settings.maxReplayBytes / 2) flusher.seal(oldest, sequence, ts);
  }

  async #round(): Promise<void> {
    const { settings, runtime, shards, flusher, meter } = this.#options;
    const nowMs = runtime.monotonic();
    this.#options.growingBytes();
    for (const shard of [...shards]) {
      if (this.#ended) return;
      shard.repeats.sweep(shard.checkpoint, nowMs);
      const since = shard.unsealedSince?.atMs;
      if (since !== undefined && nowMs - since >= settings.segmentMaxAgeMs) {
        flusher.seal(shard, this.#log.appliedSequence, this.#log.appliedTs);
      }
      const idle = shard.isFlushed && shard.checkpoint < this.#log.appliedSequence;
      const holdsBack = meter.bytesAfter(shard.checkpoint) > settings.maxReplayBytes / 4 || shard.checkpoint + 1 < this.#trimmedTo;
      if (idle && holdsBack) await flusher.advance(shard, this.#log.appliedSequence, this.#log.appliedTs);
    }
    await this.#trim(nowMs);
  }

  /** Forgets the log below every checkpoint, but for what later owners need to know repeats by. */
  async #trim(nowMs: number): Promise<void> {
    const { settings, shards, meter, wal, channel } = this.#options;
    // A shard that is about to come into memory: its checkpoint counts too.
    if (this.#ended || !shards.areComplete()) return;
    let checkpoint = this.#log.appliedSequence;
    for (const shard of shards) checkpoint = Math.min(checkpoint, shard.checkpoint);
    const before = meter.keepFrom(checkpoint, settings.repeatLogBytes, settings.repeatWindowMs, nowMs);
    if (before <= this.#trimmedTo) return;
    await wal.trim(channel, before);
    this.#trimmedTo = before;
    meter.trim(before);
  }
}
