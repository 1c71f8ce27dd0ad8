import { asCairnError, CairnError, type Logger, type Runtime } from '@cairn/base';
import type { NodeRecord } from '@cairn/proto/cairn/meta';
import { DataNodeDefinition, type TaskRequest, type TaskUpdate } from '@cairn/proto/cairn/services';
import type { Transport } from '@cairn/rpc';
import type { NodeDirectory } from './node-directory.ts';
import type { DataCoordSettings } from './settings.ts';

/** Kinds have slots of their own, so that neither can starve the other. */
export type TaskKind = 'copy' | 'rewrite' | 'build' | 'compact';

/** Whose task it is and where it would rather not run. */
export interface TaskWish {
  /** Another node than this when there is one. */
  readonly avoid?: string | undefined;
  /** Tasks of one owner (a job) share alike with those of others. */
  readonly owner?: number;
}

/** Room for one task at one datanode. Give it back. */
export interface TaskSlot {
  readonly node: NodeRecord;
  release(): void;
}

/** Tasks that may wait for a slot. */
const MAX_WAITING = 10_000;

interface Waiting extends TaskWish {
  readonly kind: TaskKind;
  readonly grant: (slot: TaskSlot) => void;
}

/** Gives out the datanodes' task slots, least busy node first, the owner that runs least first, and runs tasks there. */
export class TaskRunner {
  readonly #nodes: NodeDirectory;
  readonly #transport: Transport;
  readonly #logger: Logger;
  readonly #settings: DataCoordSettings;
  readonly #stop: AbortSignal;
  /** Tasks running, by kind and node, by kind, node and owner, and by kind and owner. */
  readonly #busy = new Map<string, number>();
  /** When an owner last got a slot, as a count of grants, while it has tasks. */
  readonly #turns = new Map<string, number>();
  #grants = 0;
  readonly #running = new Map<AbortController, string>();
  readonly #waiting = new Set<Waiting>();

  constructor(
    nodes: NodeDirectory,
    transport: Transport,
    _runtime: Runtime,
    logger: Logger,
    settings: DataCoordSettings,
    stop: AbortSignal,
  ) {
    this.#nodes = nodes;
    this.#transport = transport;
    this.#logger = logger;
    this.#settings = settings;
    this.#stop = stop;
    nodes.onChange(() => this.#nodesChanged());
  }

  /** Waits for a slot. Rejects with Cancelled when the signal aborts or the term ends. */
  async acquire(kind: TaskKind, signal: AbortSignal, wish: TaskWish = {}): Promise<TaskSlot> {
    if (signal.aborted || this.#stop.aborted) throw new CairnError('Cancelled', 'waiting for a datanode was cancelled');
    const now = this.#tryGrant(kind, wish);
    if (now) return now;
    if (this.#waiting.size >= MAX_WAITING) throw new CairnError('TooManyRequests', `${MAX_WAITING} tasks wait for datanodes already`);
    const { promise, resolve, reject } = Promise.withResolvers<TaskSlot>();
    const waiting: Waiting = { ...wish, kind, grant: resolve };
    const cancel = () => {
      this.#waiting.delete(waiting);
      reject(new CairnError('Cancelled', 'waiting for a datanode was cancelled'));
    };
    this.#waiting.add(waiting);
    signal.addEventListener('abort', cancel, { once: true });
    this.#stop.addEventListener('abort', cancel, { once: true });
    try {
      return await promise;
    } finally {
      signal.removeEventListener('abort', cancel);
      this.#stop.removeEventListener('abort', cancel);
    }
  }

  /**
   * Runs the task to its end; `onUpdate` sees its progress. Resolves with the last update. Unavailable (retriable) when the node is lost or the
   * stream ends early; the task's own error as the node gave it.
   */
  async run(
    slot: TaskSlot,
    request: TaskRequest,
    signal: AbortSignal,
    onUpdate: (update: TaskUpdate) => void = () => {},
  ): Promise<TaskUpdate> {
    const ended = new AbortController();
    const stop = () => ended.abort();
    signal.addEventListener('abort', stop, { once: true });
    this.#stop.addEventListener('abort', stop, { once: true });
    // What was aborted before tells no listener.
    if (signal.aborted || this.#stop.aborted) stop();
    this.#running.set(ended, slot.node.id);
    try {
      const client = this.#transport.client(DataNodeDefinition, slot.node.address);
      for await (const update of client.runTask(request, { signal: ended.signal, timeoutMs: Number.POSITIVE_INFINITY })) {
        if (update.finished) return update;
        onUpdate(update);
      }
      throw new CairnError('Unavailable', `datanode ${slot.node.id} ended task ${request.taskId} without a result`);
    } catch (error) {
      if (signal.aborted || this.#stop.aborted) throw new CairnError('Cancelled', `task ${request.taskId} was cancelled`, { cause: error });
      if (ended.signal.aborted)
        throw new CairnError('Unavailable', `datanode ${slot.node.id} is gone, task ${request.taskId} with it`, { cause: error });
      throw asCairnError(error);
    } finally {
      this.#running.delete(ended);
      signal.removeEventListener('abort', stop);
      this.#stop.removeEventListener('abort', stop);
    }
  }

  #tryGrant(kind: TaskKind, { avoid, owner = 0 }: TaskWish): TaskSlot | undefined {
    const { ofAll, ofOne } = this.#limits(kind);
    const free = this.#nodes
      .alive('datanode')
      .map(({ record }) => ({ node: record, busy: this.#count(kind, record.id), own: this.#count(kind, record.id, owner) }))
      .filter(({ busy, own }) => busy < ofAll && own < ofOne)
      .sort((a, b) => Number(a.node.id === avoid) - Number(b.node.id === avoid) || a.busy - b.busy);
    const best = free[0];
    if (!best) return undefined;
    const counted = [`${kind}/${best.node.id}`, `${kind}/${best.node.id}/${owner}`, ownerKey(kind, owner)];
    for (const key of counted) this.#busy.set(key, (this.#busy.get(key) ?? 0) + 1);
    const mine = ownerKey(kind, owner);
    this.#turns.set(mine, ++this.#grants);
    let released = false;
    const release = () => {
      if (released) return;
      released = true;
      for (const key of counted) {
        const left = (this.#busy.get(key) ?? 1) - 1;
        if (left === 0) this.#busy.delete(key);
        else this.#busy.set(key, left);
      }
      this.#grantWaiting();
      if (!this.#busy.has(mine)) this.#turns.delete(mine);
    };
    return { node: best.node, release };
  }

  /** Tasks of a kind that run at one node at most: in all, and of one owner. */
  #limits(kind: TaskKind): { readonly ofAll: number; readonly ofOne: number } {
    const { tasksPerNode, copyTasksPerNode, compactionTasksPerNode } = this.#settings;
    // Those that only copy hold little: many run at once, few of one job, so that a job that comes finds room and lanes are shared by job.
    if (kind === 'copy') return { ofAll: copyTasksPerNode, ofOne: tasksPerNode };
    const ofAll = kind === 'compact' ? compactionTasksPerNode : tasksPerNode;
    return { ofAll, ofOne: ofAll };
  }

  #count(kind: TaskKind, node: string, owner?: number): number {
    return this.#busy.get(owner === undefined ? `${kind}/${node}` : `${kind}/${node}/${owner}`) ?? 0;
  }

  #grantWaiting(): void {
    for (;;) {
      const granted = this.#nextInTurn().find((waiting) => {
        const slot = this.#tryGrant(waiting.kind, waiting);
        if (slot) waiting.grant(slot);
        return slot !== undefined;
      });
      if (!granted) return;
      this.#waiting.delete(granted);
    }
  }

  /** The first that waits of each kind and owner; those of owners that run least first, then of those whose turn was longest ago. */
  #nextInTurn(): Waiting[] {
    const heads = new Map<string, Waiting>();
    for (const waiting of this.#waiting) {
      const key = ownerKey(waiting.kind, waiting.owner);
      if (!heads.has(key)) heads.set(key, waiting);
    }
    const running = (key: string): number => this.#busy.get(key) ?? 0;
    const turn = (key: string): number => this.#turns.get(key) ?? 0;
    return [...heads].sort(([a], [b]) => running(a) - running(b) || turn(a) - turn(b)).map(([, waiting]) => waiting);
  }

  #nodesChanged(): void {
    const alive = new Set(this.#nodes.alive('datanode').map((node) => node.record.id));
    for (const [controller, nodeId] of this.#running) {
      if (alive.has(nodeId)) continue;
      this.#logger.info({ nodeId }, 'a datanode is gone; its tasks go elsewhere');
      controller.abort();
    }
    this.#grantWaiting();
  }
}

function ownerKey(kind: TaskKind, owner = 0): string {
  return `${kind}//${owner}`;
}
