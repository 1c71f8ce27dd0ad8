import { asCairnError, CairnError, type Logger, type Runtime } from '@cairn/base';
import { keys } from '@cairn/catalog';
import type { Compare, MetaEntry } from '@cairn/meta';
import { ChannelRecord, CollectionState } from '@cairn/proto/cairn/meta';
import { StreamingDefinition } from '@cairn/proto/cairn/services';
import type { Transport } from '@cairn/rpc';
import type { WalStore } from '@cairn/wal';
import type { Held } from './catalog-state.ts';
import type { ChannelLoads } from './change-preparer.ts';
import { putRecord } from './changes/change.ts';
import { type BalancedNode, type Move, nextMove } from './channel-balance.ts';
import type { LeaderStore } from './leader-store.ts';
import type { LivingNode, NodeDirectory } from './node-directory.ts';
import { Periodic } from './periodic.ts';
import { followPrefix } from './prefix-follower.ts';

/** Name of data channel number n. */
export const dataChannel = (n: number): string => `dml_${n}`;

const ROUND_MS = 1_000;
/** Channels on their way between living nodes at once: each is without an owner for a moment. */
const MOVES_AT_ONCE = 2;
/** One try of a release; a channel whose release failed is left alone for a while. */
const RELEASE_TIMEOUT_MS = 6_000;
const MOVE_AGAIN_MS = 1_000;

/**
 * Says who owns each data channel. A new owner is named, with a raised epoch, in a transaction that compares that the old owner's node key is
 * gone (or was registered again since: another process under the same id) and that the new one's is there. A living owner is asked to release a
 * channel (its node drains, or others have fewer): it gives its record back, and then the channel is as any that has no owner. Whoever crashes on
 * the way, the record names one owner or none, and the fence keeps a former one out of the log.
 */
export class ChannelAssigner implements ChannelLoads {
  readonly #store: LeaderStore;
  readonly #wal: WalStore;
  readonly #nodes: NodeDirectory;
  readonly #logger: Logger;
  readonly #count: number;
  readonly #settleMs: number;
  readonly #rounds: Periodic;
  readonly #records = new Map<string, Held<ChannelRecord>>();
  /** When the first streaming node was seen, since there was none. */
  #nodesSince: number | undefined;
  readonly #ensured = new Set<string>();
  readonly #settleBalanceMs: number;
  readonly #transport: Transport;
  /** Channels that are asked for now, or were in vain a moment ago. */
  readonly #moving = new Set<string>();
  #movesUnderWay = 0;
  /** Channels that stay where they are, and how many want it. */
  readonly #still = new Map<string, number>();
  /** The nodes seen last, and since when it is these. */
  #members = { names: '', sinceMs: 0 };
  readonly #stop: AbortSignal;
  readonly #runtime: Runtime;

  constructor(
    store: LeaderStore,
    wal: WalStore,
    nodes: NodeDirectory,
    transport: Transport,
    limits: { readonly channels: number; readonly assignSettleMs: number; readonly balanceSettleMs: number },
    runtime: Runtime,
    logger: Logger,
    stop: AbortSignal,
  ) {
    this.#store = store;
    this.#wal = wal;
    this.#nodes = nodes;
    this.#count = limits.channels;
    this.#settleMs = limits.assignSettleMs;
    this.#settleBalanceMs = limits.balanceSettleMs;
    this.#transport = transport;
    this.#logger = logger;
    this.#stop = stop;
    this.#runtime = runtime;
    this.#rounds = new Periodic('channel assignment', ROUND_MS, () => this.#round(), runtime, logger, stop);
  }

  /** Makes the channels that are missing; assignment goes on by itself. */
  async start(): Promise<void> {
    await this.#ensureChannels();
    this.#nodes.onChange(() => this.#rounds.poke());
    const follower = {
      reset: () => {},
      put: (entry: MetaEntry) => this.#put(entry),
      delete: () => {},
      // An owner that gives a channel back does it here.
      changed: () => this.#rounds.poke(),
    };
    await followPrefix(this.#store.meta, keys.channels, follower, this.#runtime, this.#logger, this.#stop);
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
    return [...this.#records.values()].map((held) => held.record);
  }

  /** Owner of a channel now. ChannelNotAvailable (retriable) while it has none. */
  ownerOf(channel: string): ChannelRecord {
    const record = this.#records.get(channel)?.record;
    if (!record || record.nodeId === '') throw new CairnError('ChannelNotAvailable', `channel ${channel} has no owner now`);
    return record;
  }

  /** None of these channels is moved between living nodes while `work` runs (a barrier: it would have to begin anew). */
  async still<T>(channels: readonly string[], work: () => Promise<T>): Promise<T> {
    for (const channel of channels) this.#still.set(channel, (this.#still.get(channel) ?? 0) + 1);
    try {
      return await work();
    } finally {
      for (const channel of channels) {
        const left = (this.#still.get(channel) ?? 1) - 1;
        if (left > 0) this.#still.set(channel, left);
        else this.#still.delete(channel);
      }
      this.#rounds.poke();
    }
  }

  async #ensureChannels(): Promise<void> {
    for await (const page of this.#store.pages(keys.channels)) for (const entry of page) this.#put(entry);
    // Side by side: each asks the log's servers, and a fail-over waits for all of them.
    await Promise.all(Array.from({ length: this.#count }, (_, n) => this.#ensureChannel(dataChannel(n))));
  }

  async #ensureChannel(channel: string): Promise<void> {
    if (!this.#ensured.has(channel)) {
      await this.#wal.ensureChannel(channel);
      this.#ensured.add(channel);
    }
    if (this.#records.has(channel)) return;
    const key = keys.channel(channel);
    const record: ChannelRecord = { channel, epoch: 0, nodeId: '', address: '', releasedSequence: 0 };
    const revision = await this.#store.commit({ if: [{ kind: 'missing', key }], puts: [putRecord(key, ChannelRecord, record)] });
    if (revision !== undefined) this.#take({ key, record, revision });
  }

  #put(entry: MetaEntry): void {
    this.#take({ key: entry.key, record: ChannelRecord.decode(entry.value), revision: entry.modRevision });
  }

  /** What came last counts: a channel that was assigned may have been handed back before the answer to the assignment is here. */
  #take(held: Held<ChannelRecord>): void {
    const known = this.#records.get(held.record.channel);
    if (!known || known.revision <= held.revision) this.#records.set(held.record.channel, held);
  }

  async #round(): Promise<void> {
    const nodes = this.#nodes.alive('streaming');
    const owned = new Map<string, string[]>(nodes.map((node) => [node.record.id, []]));
    const orphans: Held<ChannelRecord>[] = [];
    for (const held of this.#records.values()) {
      const owner = nodes.find((node) => node.record.id === held.record.nodeId);
      if (owner && owner.createRevision < held.revision) owned.get(owner.record.id)?.push(held.record.channel);
      else orphans.push(held);
    }
    await this.#adopt(orphans, nodes, owned);
    this.#balance(nodes, owned, orphans.length === 0);
  }

  /** Every channel without an owner goes to the node with the fewest of those that stay. */
  async #adopt(orphans: readonly Held<ChannelRecord>[], nodes: readonly LivingNode[], owned: Map<string, string[]>): Promise<void> {
    if (orphans.length === 0 || this.#waitsForMoreNodes(nodes, orphans.length)) return;
    const staying = nodes.filter((node) => !node.record.draining);
    for (const held of orphans) {
      if (this.#stop.aborted) return;
      const target = staying.reduce<LivingNode | undefined>(
        (best, node) => (best && load(owned, best) <= load(owned, node) ? best : node),
        undefined,
      );
      if (!target) return;
      if (await this.#assign(held, target)) owned.get(target.record.id)?.push(held.record.channel);
    }
  }

  /** Asks for the channels that should leave their living owners; does not wait for them. */
  #balance(nodes: readonly LivingNode[], owned: ReadonlyMap<string, readonly string[]>, allOwned: boolean): void {
    const names = nodes.map((node) => `${node.record.id}@${node.createRevision}`).join(' ');
    const nowMs = this.#runtime.monotonic();
    if (names !== this.#members.names) this.#members = { names, sinceMs: nowMs };
    const settled = allOwned && this.#movesUnderWay === 0 && nowMs - this.#members.sinceMs >= this.#settleBalanceMs;
    const left: BalancedNode[] = nodes.map(({ record }) => ({
      id: record.id,
      draining: record.draining,
      channels: owned.get(record.id) ?? [],
    }));
    const held = new Set([...this.#moving, ...this.#still.keys()]);
    while (this.#movesUnderWay < MOVES_AT_ONCE) {
      const move = nextMove(left, held, settled && this.#movesUnderWay === 0);
      if (!move) return;
      held.add(move.channel);
      void this.#move(move);
    }
  }

  /** Asks the owner for a channel; the record that it gives back comes by the watch, as any. */
  async #move({ channel, from }: Move): Promise<void> {
    const held = this.#records.get(channel);
    if (!held || held.record.nodeId !== from) return;
    const { epoch, address } = held.record;
    this.#moving.add(channel);
    this.#movesUnderWay++;
    let pauseMs = 0;
    try {
      const owner = this.#transport.client(StreamingDefinition, address);
      const { sequence } = await owner.release({ channel, epoch }, { timeoutMs: RELEASE_TIMEOUT_MS, signal: this.#stop });
      this.#logger.info({ channel, epoch, from, sequence }, 'channel released by its owner');
    } catch (error) {
      pauseMs = MOVE_AGAIN_MS;
      if (!this.#stop.aborted) this.#logger.info({ channel, epoch, from, error: asCairnError(error).message }, 'channel not released yet');
    } finally {
      this.#movesUnderWay--;
      this.#runtime.after(pauseMs, () => {
        this.#moving.delete(channel);
        this.#rounds.poke();
      });
    }
  }

  /**
   * When no channel has a living owner (a cluster that starts) the first node shall not get them all: a moment is left for others to come. In one
   * process (`inproc:`) there are no others.
   */
  #waitsForMoreNodes(nodes: readonly LivingNode[], orphans: number): boolean {
    if (nodes.length === 0) {
      this.#nodesSince = undefined;
      return true;
    }
    this.#nodesSince ??= this.#runtime.monotonic();
    if (orphans < this.#records.size || nodes.some((node) => node.record.address.startsWith('inproc:'))) return false;
    const left = this.#nodesSince + this.#settleMs - this.#runtime.monotonic();
    if (left <= 0) return false;
    this.#runtime.after(left + 1, () => this.#rounds.poke());
    return true;
  }

  async #assign(held: Held<ChannelRecord>, target: LivingNode): Promise<boolean> {
    const before = held.record;
    const after: ChannelRecord = {
      channel: before.channel,
      epoch: before.epoch + 1,
      nodeId: target.record.id,
      address: target.record.address,
      releasedSequence: before.nodeId === '' ? before.releasedSequence : 0,
    };
    const gone = before.nodeId === '' || before.nodeId === target.record.id ? [] : [this.#goneNow(held)];
    const revision = await this.#store.commit({
      if: [
        { kind: 'modRevision', key: held.key, equals: held.revision },
        { kind: 'createRevision', key: target.key, equals: target.createRevision },
        ...gone,
      ],
      puts: [putRecord(held.key, ChannelRecord, after)],
    });
    if (revision === undefined) {
      this.#runtime.after(200, () => this.#rounds.poke());
      return false;
    }
    this.#take({ key: held.key, record: after, revision });
    this.#logger.info({ channel: after.channel, epoch: after.epoch, owner: after.nodeId, before: before.nodeId }, 'channel assigned');
    return true;
  }

  /** Holds when the process that owned it under this id is gone: no node has the id, or one does that registered after the assignment. */
  #goneNow({ record, revision }: Held<ChannelRecord>): Compare {
    const key = keys.node('streaming', record.nodeId);
    const back = this.#nodes.alive('streaming').find((node) => node.key === key);
    return back && back.createRevision > revision ? { kind: 'createRevision', key, equals: back.createRevision } : { kind: 'missing', key };
  }
}

const load = (owned: ReadonlyMap<string, readonly string[]>, node: LivingNode): number => owned.get(node.record.id)?.length ?? 0;
