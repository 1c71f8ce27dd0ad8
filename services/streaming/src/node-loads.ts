import { asCairnError, CairnError, type Logger, type Runtime } from '@cairn/base';
import { keys } from '@cairn/catalog';
import type { MetaStore } from '@cairn/meta';
import { CollectionState, NodeRecord } from '@cairn/proto/cairn/meta';
import type { Transport } from '@cairn/rpc';
import type { StreamingCatalog } from './catalog-face.ts';
import type { ViewKeeper } from './channel-owner.ts';
import { CollectionSegments } from './collection-segments.ts';
import type { Flushed } from './flusher.ts';
import type { DataNodeInstance } from './placement.ts';
import { PrefixWatch } from './prefix-watch.ts';
import type { Shard } from './shard.ts';
import { ShardView } from './shard-view.ts';

export interface NodeLoadsOptions {
  readonly meta: MetaStore;
  readonly transport: Transport;
  readonly catalog: StreamingCatalog;
  readonly runtime: Runtime;
  readonly logger: Logger;
  readonly loadTimeoutMs: number;
}

interface Served {
  readonly shard: Shard;
  readonly view: ShardView;
}

/** The views of all loaded shards that this node owns, and what they share: the datanodes, and the segments of each collection. */
export class NodeLoads implements ViewKeeper {
  readonly #options: NodeLoadsOptions;
  readonly #served = new Map<Shard, Served>();
  readonly #segments = new Map<number, CollectionSegments>();
  /** Shards that datanodes are still letting go of, by vchannel: a new view of one waits. */
  readonly #closing = new Map<string, Promise<void>>();
  readonly #gone = new WeakSet<Shard>();
  readonly #datanodes: PrefixWatch;
  /** Calls under way, by the datanode's key. */
  readonly #onGone = new Map<string, Set<() => void>>();
  #nodes: readonly DataNodeInstance[] = [];

  constructor(options: NodeLoadsOptions) {
    this.#options = options;
    const { meta, runtime, logger } = options;
    this.#datanodes = new PrefixWatch({ meta, runtime, logger, prefix: `${keys.nodes}datanode/`, onChange: () => this.#nodesChanged() });
  }

  /** One call to a datanode: given up when the node is gone, however long the caller would wait (a cut node refuses nothing). */
  async whileAlive<T>(node: DataNodeInstance, signal: AbortSignal, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    if (!this.#nodes.some(({ key }) => key === node.key)) throw new CairnError('NodeNotAvailable', `datanode ${node.nodeId} is gone`);
    const calling = new AbortController();
    const cancel = (): void => calling.abort();
    const listeners = this.#onGone.get(node.key) ?? new Set();
    this.#onGone.set(node.key, listeners.add(cancel));
    signal.addEventListener('abort', cancel, { once: true });
    if (signal.aborted) cancel();
    try {
      return await work(calling.signal);
    } catch (error) {
      if (calling.signal.aborted && !signal.aborted)
        throw new CairnError('NodeNotAvailable', `datanode ${node.nodeId} is gone`, { cause: error });
      throw error;
    } finally {
      listeners.delete(cancel);
      if (listeners.size === 0 && this.#onGone.get(node.key) === listeners) this.#onGone.delete(node.key);
      signal.removeEventListener('abort', cancel);
    }
  }

  #nodesChanged(): void {
    this.#nodes = [...this.#datanodes.entries.values()].map((entry) => {
      const { id, address } = NodeRecord.decode(entry.value);
      return { key: `${id}@${entry.createRevision}`, nodeId: id, address };
    });
    const alive = new Set(this.#nodes.map(({ key }) => key));
    for (const [key, listeners] of this.#onGone) if (!alive.has(key)) for (const cancel of [...listeners]) cancel();
    for (const { view } of this.#served.values()) view.reconcile();
  }

  start(): void {
    this.#datanodes.start();
  }

  async stop(): Promise<void> {
    for (const shard of [...this.#served.keys()]) this.remove(shard);
    await this.#datanodes.stop();
  }

  viewOf(shard: Shard): ShardView | undefined {
    return this.#served.get(shard)?.view;
  }

  isServed(shard: Shard): boolean {
    return this.#served.has(shard);
  }

  /** Follows the catalog: a loaded collection's shard gets a view, a released one's is closed, an existing one looks again. */
  refresh(shard: Shard): void {
    const { catalog } = this.#options;
    const collection = catalog.collection(shard.collectionId);
    const loaded = catalog.load(shard.collectionId) !== undefined && collection?.record.state === CollectionState.COLLECTION_LIVE;
    const served = this.#served.get(shard);
    if (loaded && served) served.view.reconcile();
    else if (loaded) this.#open(shard);
    else if (served) this.#close(served);
  }

  flushed(shard: Shard, flushed: Flushed): void {
    const served = this.#served.get(shard);
    if (!served) return;
    // The watch brings them too, later; reads must not miss them until then.
    this.#segments.get(shard.collectionId)?.add(flushed);
    served.view.reconcile();
  }

  /** The shard is no longer this node's; its collection may be dropped, then datanodes let go of it. */
  remove(shard: Shard): void {
    this.#gone.add(shard);
    const served = this.#served.get(shard);
    if (!served) return;
    const collection = this.#options.catalog.collection(shard.collectionId);
    if (!collection || collection.record.state === CollectionState.COLLECTION_DROPPED) {
      this.#close(served);
      return;
    }
    this.#forget(served);
    served.view.abandon(new CairnError('ChannelNotAvailable', `this node no longer owns the channel of shard ${shard.vchannel}`));
  }

  #open(shard: Shard): void {
    const { collectionId, vchannel } = shard;
    if (this.#closing.has(vchannel) || this.#gone.has(shard)) return;
    const { meta, runtime, logger } = this.#options;
    let segments = this.#segments.get(collectionId);
    if (!segments) {
      // Made only after the load is known: what was published before the load is in its first listing.
      segments = new CollectionSegments(meta, runtime, logger, collectionId, () => this.#reconcile(collectionId));
      this.#segments.set(collectionId, segments);
    }
    const view = new ShardView({ ...this.#options, shard, segments, nodes: () => this.#nodes });
    this.#served.set(shard, { shard, view });
    view.reconcile();
  }

  #reconcile(collectionId: number): void {
    for (const { shard, view } of this.#served.values()) if (shard.collectionId === collectionId) view.reconcile();
  }

  #close(served: Served): void {
    const { shard, view } = served;
    this.#forget(served);
    shard.dropRetained();
    const reason = new CairnError('CollectionNotLoaded', `collection not loaded[collection=${shard.collectionId}]`);
    const closed = view
      .close(reason)
      .catch((error: unknown) =>
        this.#options.logger.warn({ vchannel: shard.vchannel, error: asCairnError(error) }, 'a view did not close cleanly'),
      );
    const done = closed.then(() => {
      this.#closing.delete(shard.vchannel);
      if (this.#options.catalog.load(shard.collectionId)) this.refresh(shard);
    });
    this.#closing.set(shard.vchannel, done);
  }

  #forget({ shard }: Served): void {
    this.#served.delete(shard);
    const { collectionId } = shard;
    if ([...this.#served.keys()].some((other) => other.collectionId === collectionId)) return;
    this.#segments.get(collectionId)?.close();
    this.#segments.delete(collectionId);
  }
}
