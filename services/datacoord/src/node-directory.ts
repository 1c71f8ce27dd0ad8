import type { Logger, Runtime } from '@cairn/base';
import { keys } from '@cairn/catalog';
import type { MetaEntry, MetaStore } from '@cairn/meta';
import { NodeRecord } from '@cairn/proto/cairn/meta';
import { followPrefix } from './prefix-follower.ts';

/** A living node: its key is there, so its lease is. */
export interface LivingNode {
  readonly key: string;
  /** Grows with every registration: a process that came back under an old id has a greater one. */
  readonly createRevision: number;
  readonly record: NodeRecord;
}

/** Who lives, by watching `node/`. */
export class NodeDirectory {
  readonly #meta: MetaStore;
  readonly #runtime: Runtime;
  readonly #logger: Logger;
  readonly #stop: AbortSignal;
  readonly #nodes = new Map<string, LivingNode>();
  readonly #listeners: (() => void)[] = [];

  constructor(meta: MetaStore, runtime: Runtime, logger: Logger, stop: AbortSignal) {
    this.#meta = meta;
    this.#runtime = runtime;
    this.#logger = logger;
    this.#stop = stop;
  }

  /** Resolves when the first listing is in. */
  start(): Promise<void> {
    const follower = {
      reset: () => this.#nodes.clear(),
      put: (entry: MetaEntry) => this.#put(entry),
      delete: (key: string) => this.#nodes.delete(key),
      changed: () => {
        for (const listener of this.#listeners) listener();
      },
    };
    return followPrefix(this.#meta, keys.nodes, follower, this.#runtime, this.#logger, this.#stop);
  }

  onChange(listener: () => void): void {
    this.#listeners.push(listener);
  }

  /** Nodes of a role, by id. */
  alive(role: string): LivingNode[] {
    return [...this.#nodes.values()].filter((node) => node.record.role === role).sort((a, b) => (a.record.id < b.record.id ? -1 : 1));
  }

  all(): NodeRecord[] {
    return [...this.#nodes.values()].map((node) => node.record);
  }

  #put(entry: MetaEntry): void {
    this.#nodes.set(entry.key, { key: entry.key, createRevision: entry.createRevision, record: NodeRecord.decode(entry.value) });
  }
}
