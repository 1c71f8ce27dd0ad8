import { CairnError, type Logger, type Runtime } from '@cairn/base';
import { keys } from '@cairn/catalog';
import type { Compare, MetaEntry } from '@cairn/meta';
import { ChannelRecord, CollectionState } from '@cairn/proto/cairn/meta';
import type { WalStore } from '@cairn/wal';
import type { ChannelLoads } from './change-preparer.ts';
import { putRecord } from './changes/change.ts';
import type { LeaderStore } from './leader-store.ts';
import type { LivingNode, NodeDirectory } from './node-directory.ts';
import { Periodic } from './periodic.ts';

/** Name of data channel number n. */
export const dataChannel = (n: number): string => `dml_${n}`;

const ROUND_MS = 1_000;

/**
 * Says who owns each data channel. A new owner is named, with a raised epoch, in a transaction that compares that the old owner's node key is
 * gone (or was registered again since: another process under the same id) and that the new one's is there.
 */
export class ChannelAssigner implements ChannelLoads {
  readonly #store: LeaderStore;
  readonly #wal: WalStore;
  readonly #nodes: NodeDirectory;
  readonly #logger: Logger;
  readonly #count: number;
  readonly #rounds: Periodic;
  readonly #records = new Map<string, ChannelRecord>();
  readonly #ensured = new Set<string>();
  readonly #stop: AbortSignal;
  readonly #runtime: Runtime;

  constructor(store: LeaderStore, wal: WalStore, nodes: NodeDirectory, count: number, runtime: Runtime, logger: Logger, stop: AbortSignal) {
    this.#store = store;
    this.#wal = wal;
    this.#nodes = nodes;
    this.#count = count;
    this.#logger = logger;
    this.#stop = stop;
    this.#runtime = runtime;
    this.#rounds = new Periodic('channel assignment', ROUND_MS, () => this.#round(), runtime, logger, stop);
  }

  /** Makes the channels that are missing; assignment goes on by itself. */
  async start(): Promise<void> {
    this.#nodes.onChange(() => this.#rounds.poke());
    await this.#ensureChannels();
    this.#rounds.poke();
  }

  channelsByLoad(): string[] {
    const shards = new Map<string, number>([...this.#records.keys()].map((channel) => [channel, 0]));
    for (const collection of this.#store.state.collections.values()) {
      if (collection.state === CollectionState.COLLECTION_DROPPED) continue;
      for (const { channel } of collection.shards) shards.set(channel, (shards.get(channel) ?? 0) + 1);
    }
    return [...shards].sort(([a, m], [b, n]) => m - n || (a < b ? -1 : 1)).map(([channel]) => channel);
  }

  records(): ChannelRecord[] {
    return [...this.#records.values()];
  }

  /** Owner of a channel now. ChannelNotAvailable (retriable) while it has none. */
  ownerOf(channel: string): ChannelRecord {
    const record = this.#records.get(channel);
    if (!record || record.nodeId === '') throw new CairnError('ChannelNotAvailable', `channel ${channel} has no owner now`);
    return record;
  }

  async #ensureChannels(): Promise<void> {
    await this.#read();
    for (let n = 0; n < this.#count; n++) {
      const channel = dataChannel(n);
      if (!this.#ensured.has(channel)) {
        await this.#wal.ensureChannel(channel);
        this.#ensured.add(channel);
      }
      if (this.#records.has(channel)) continue;
      const record: ChannelRecord = { channel, epoch: 0, nodeId: '', address: '' };
      await this.#store.commit({
        if: [{ kind: 'missing', key: keys.channel(channel) }],
        puts: [putRecord(keys.channel(channel), ChannelRecord, record)],
      });
      this.#records.set(channel, record);
    }
  }

  async #read(): Promise<Map<string, MetaEntry>> {
    const entries = new Map<string, MetaEntry>();
    for await (const page of this.#store.pages(keys.channels)) {
      for (const entry of page) {
        const record = ChannelRecord.decode(entry.value);
        entries.set(record.channel, entry);
        this.#records.set(record.channel, record);
      }
    }
    return entries;
  }

  async #round(): Promise<void> {
    await this.#ensureChannels();
    const entries = await this.#read();
    const nodes = this.#nodes.alive('streaming');
    const owned = new Map<string, number>(nodes.map((node) => [node.record.id, 0]));
    const orphans: MetaEntry[] = [];
    for (const [channel, entry] of entries) {
      const record = this.#records.get(channel);
      const owner = nodes.find((node) => node.record.id === record?.nodeId);
      if (owner && owner.createRevision < entry.modRevision) owned.set(owner.record.id, (owned.get(owner.record.id) ?? 0) + 1);
      else orphans.push(entry);
    }
    for (const entry of orphans) {
      if (this.#stop.aborted) return;
      const target = nodes.reduce<LivingNode | undefined>(
        (best, node) => (best && load(owned, best) <= load(owned, node) ? best : node),
        undefined,
      );
      if (!target) return;
      if (await this.#assign(entry, target)) owned.set(target.record.id, load(owned, target) + 1);
    }
  }

  async #assign(entry: MetaEntry, target: LivingNode): Promise<boolean> {
    const before = ChannelRecord.decode(entry.value);
    const after: ChannelRecord = {
      channel: before.channel,
      epoch: before.epoch + 1,
      nodeId: target.record.id,
      address: target.record.address,
    };
    const gone: Compare[] =
      before.nodeId === '' || before.nodeId === target.record.id ? [] : [{ kind: 'missing', key: keys.node('streaming', before.nodeId) }];
    const revision = await this.#store.commit({
      if: [
        { kind: 'modRevision', key: entry.key, equals: entry.modRevision },
        { kind: 'createRevision', key: target.key, equals: target.createRevision },
        ...gone,
      ],
      puts: [putRecord(entry.key, ChannelRecord, after)],
    });
    if (revision === undefined) {
      this.#runtime.after(200, () => this.#rounds.poke());
      return false;
    }
    this.#records.set(after.channel, after);
    this.#logger.info({ channel: after.channel, epoch: after.epoch, owner: after.nodeId, before: before.nodeId }, 'channel assigned');
    return true;
  }
}

const load = (owned: ReadonlyMap<string, number>, node: LivingNode): number => owned.get(node.record.id) ?? 0;
