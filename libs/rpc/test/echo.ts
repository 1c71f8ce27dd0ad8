import { CairnError, SystemRuntime } from '@cairn/base';
import type { DataNodeDefinition, TaskUpdate } from '@cairn/proto/cairn/services';
import type { CallContext, Handlers } from '../src/index.ts';

export type EchoDefinition = typeof DataNodeDefinition;
const runtime = new SystemRuntime();

/** A DataNode that answers what its request asks for; shows what reached it. */
export class EchoNode {
  contexts: CallContext[] = [];
  streamEnded = 0;

  readonly handlers: Handlers<EchoDefinition> = {
    loadSegments: async () => ({}),
    releaseSegments: async (request, context) => {
      this.contexts.push(context);
      if (request.vchannel === 'slow') await runtime.sleep(10_000, context.signal);
      if (request.vchannel === 'stranger') throw new TypeError('not one of ours: Ä\n');
      if (request.vchannel === 'away') throw new CairnError('Unavailable', 'a store is away', { extraInfo: { store: 'x' } });
      throw new CairnError('ObjectDamaged', `object is damaged: ${request.vchannel}`, { legacy: 7, extraInfo: { key: 'värde' } });
    },
    search: async (request) => ({
      counts: [request.plan?.nq ?? 0],
      scores: [0.5],
      columns: request.plan?.queries ?? new Uint8Array(),
      ts: 9,
      searchedRows: 3,
    }),
    query: async (_request, context) => {
      this.contexts.push(context);
      return { columns: new Uint8Array(), count: Number(context.metadata.get('count') ?? 0), ts: Math.round(context.remaining()) };
    },
    runTask: (request, context) => this.#updates(request.taskId, context),
  };

  async *#updates(total: number, context: CallContext): AsyncGenerator<TaskUpdate> {
    try {
      for (let i = 0; i < total; i++) {
        if (context.signal.aborted) return;
        if (i === 50) throw new CairnError('NodeNotAvailable', 'lost at 50');
        yield { doneBytes: i, doneObjects: 0, finished: false, objects: [], rows: 0, compacted: undefined, rewritten: [] };
        await runtime.sleep(1);
      }
    } finally {
      this.streamEnded++;
    }
  }
}
