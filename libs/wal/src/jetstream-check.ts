import type { JetStreamConnection } from './jetstream-connection.ts';

export interface JetStreamCheck {
  /** HTTP monitoring addresses of the servers, `http://host:8222`. */
  readonly monitors: readonly string[];
  readonly replicas: number;
  /** Names of the streams that exist. */
  readonly streams: readonly string[];
}

const MINIMUM_MAJOR = 2;
const MINIMUM_MINOR = 12;
const MONITOR_TIMEOUT_MS = 2000;

/** What of `/jsz?config=true` we read. */
interface JetStreamMonitor {
  readonly server_id?: string;
  readonly config?: { readonly sync_always?: boolean; readonly sync_interval?: number };
}

/** Problems of servers and streams that cost durability or availability, in words. */
export async function checkJetStream(connection: JetStreamConnection, check: JetStreamCheck): Promise<string[]> {
  const problems: string[] = [];
  const version = connection.nats.info?.version ?? 'unknown';
  const [major = 0, minor = 0] = version.split('.').map(Number);
  if (major < MINIMUM_MAJOR || (major === MINIMUM_MAJOR && minor < MINIMUM_MINOR)) {
    problems.push(`nats-server ${version} is older than ${MINIMUM_MAJOR}.${MINIMUM_MINOR}: it has no atomic batches, which fences need`);
  }
  if (check.monitors.length === 0) {
    problems.push(
      'that nats-server runs with sync_interval: always cannot be verified (no wal.nats.monitors): with another setting it loses acknowledged records',
    );
  }
  for (const monitor of check.monitors) problems.push(...(await checkSync(monitor)));
  for (const stream of check.streams) {
    const { config } = await connection.manager.streams.info(stream);
    if (config.num_replicas < check.replicas)
      problems.push(`stream ${stream} has ${config.num_replicas} replicas, ${check.replicas} are configured`);
    if (!config.allow_atomic || !config.allow_direct) problems.push(`stream ${stream} lacks allow_atomic or allow_direct`);
    if (config.storage !== 'file') problems.push(`stream ${stream} is kept in ${config.storage}, not in files`);
  }
  return problems;
}

async function checkSync(monitor: string): Promise<string[]> {
  try {
    const response = await fetch(new URL('/jsz?config=true', monitor), { signal: AbortSignal.timeout(MONITOR_TIMEOUT_MS) });
    if (!response.ok) return [`sync_interval of ${monitor} cannot be verified: HTTP ${response.status}`];
    const { config } = (await response.json()) as JetStreamMonitor;
    if (!config) return [`sync_interval of ${monitor} cannot be verified: JetStream is not enabled there`];
    return config.sync_always
      ? []
      : [`nats-server at ${monitor} does not run with sync_interval: always: it loses acknowledged records when it crashes`];
  } catch (error) {
    return [`sync_interval of ${monitor} cannot be verified: ${error instanceof Error ? error.message : String(error)}`];
  }
}
