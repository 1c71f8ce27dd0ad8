import { asCairnError, type Config, createLogger, type Logger, type Runtime, randomId, SystemRuntime } from '@cairn/base';
import type { MetaStore } from '@cairn/meta';
import type { ObjectStore } from '@cairn/objects';
import { openStores } from '@cairn/stores';
import type { WalStore } from '@cairn/wal';

/** What every process has, whatever its role. */
export interface ProcessParts {
  readonly config: Config;
  readonly runtime: Runtime;
  readonly logger: Logger;
  readonly nodeId: string;
  readonly meta: MetaStore;
  readonly objects: ObjectStore;
  readonly wal: WalStore;
  /** Closes the stores; those that use them have stopped. */
  close(): Promise<void>;
}

const WAIT_FIRST_MS = 100;
const WAIT_MAX_MS = 2_000;
const NODE_ID_LENGTH = 8;

/** Clock, log and stores of this process. Waits for stores that are not there yet, and says for which. */
export async function openProcess(
  role: string,
  config: Config,
  signal: AbortSignal,
  logMixin?: () => Record<string, unknown>,
): Promise<ProcessParts> {
  const runtime = new SystemRuntime();
  const nodeId = config.node.id || `${role}-${randomId(runtime).slice(0, NODE_ID_LENGTH)}`;
  const logger = createLogger({ level: config.log.level, ...(logMixin ? { mixin: logMixin } : {}) }).child({ role, node: nodeId });
  const { meta, objects, wal, close } = await openStores(config, runtime, logger, signal);
  await Promise.all([
    waitFor('metadata store', meta, runtime, logger, signal),
    waitFor('write-ahead log', wal, runtime, logger, signal),
    waitFor('object store', objects, runtime, logger, signal),
  ]);
  for (const problem of await wal.check()) logger.warn({ problem }, 'the write-ahead log is not as durable as it should be');
  return { config, runtime, logger, nodeId, meta, objects, wal, close };
}

async function waitFor(
  what: string,
  store: { ping(): Promise<void> },
  runtime: Runtime,
  logger: Logger,
  signal: AbortSignal,
): Promise<void> {
  for (let delay = WAIT_FIRST_MS; ; delay = Math.min(delay * 2, WAIT_MAX_MS)) {
    try {
      return await store.ping();
    } catch (error) {
      if (signal.aborted) throw error;
      logger.warn({ reason: asCairnError(error).message }, `waiting for the ${what}`);
      await runtime.sleep(delay, signal);
    }
  }
}
