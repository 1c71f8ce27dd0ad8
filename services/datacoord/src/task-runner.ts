import { asCairnError, CairnError, type Logger, type Runtime } from '@cairn/base';
import type { NodeRecord } from '@cairn/proto/cairn/meta';
import { DataNodeDefinition, type TaskRequest, type TaskUpdate } from '@cairn/proto/cairn/services';
import type { Transport } from '@cairn/rpc';
import type { NodeDirectory } from './node-directory.ts';
import type { DataCoordSettings } from './settings.ts';

/** Kinds have slots of their own, so that neither can starve the other. */
export type TaskKind = 'copy' | 'build' | 'compact';

/** Room for one task at one datanode. Give it back. */
export interface TaskSlot {
  readonly node: NodeRecord;
  release(): void;
}

/** Tasks that may wait for a slot. */
const MAX_WAITING = 10_000;

interface Waiting {
  readonly kind: TaskKind;
  readonly avoid: string | undefined;
  readonly grant: (slot: TaskSlot) => void;
}

/** Gives out the datanodes' task slots, least busy node first, and runs tasks there. */
export class TaskRunner {
  readonly #nodes: NodeDirectory;
  readonly #transport: Transport;
  readonly #logger: Logger;
  readonly #settings: DataCoordSettings;
  readonly #stop: AbortSignal;
  readonly #busy = new Map<string, number>();
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

  /** Waits for a slot; another node than `avoid` when there is one. Rejects with Cancelled when the signal aborts or the term ends. */
  async acquire(kind: TaskKind, signal: AbortSignal, avoid?: string): Promise<TaskSlot> {
    if (signal.aborted || this.#stop.aborted) throw new CairnError('Cancelled', 'waiting for a datanode was cancelled');
    const now = this.#tryGrant(kind, avoid);
    if (now) return now;
    if (this.#waiting.size >= MAX_WAITING) throw new CairnError('TooManyRequests', `${MAX_WAITING} tasks wait for datanodes already`);
    const { promise, resolve, reject } = Promise.withResolvers<TaskSlot>();
    const waiting: Waiting = { kind, avoid, grant: resolve };
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

  #tryGrant(kind: TaskKind, avoid: string | undefined): TaskSlot | undefined {
    const free = this.#nodes
      .alive('datanode')
      .map((node) => ({ node: node.record, busy: this.#busy.get(`${kind}/${node.record.id}`) ?? 0 }))
      .filter(({ busy }) => busy < (kind === 'compact' ? this.#settings.compactionTasksPerNode : this.#settings.tasksPerNode))
      .sort((a, b) => Number(a.node.id === avoid) - Number(b.node.id === avoid) || a.busy - b.busy);
    const best = free[0];
    if (!best) return undefined;
    const key = `${kind}/${best.node.id}`;
    this.#busy.set(key, best.busy + 1);
    let released = false;
    const release = () => {
      if (released) return;
      released = true;
      this.#busy.set(key, (this.#busy.get(key) ?? 1) - 1);
      this.#grantWaiting();
    };
    return { node: best.node, release };
  }

  #grantWaiting(): void {
    for (const waiting of this.#waiting) {
      const slot = this.#tryGrant(waiting.kind, waiting.avoid);
      if (!slot) continue;
      this.#waiting.delete(waiting);
      waiting.grant(slot);
    }
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
