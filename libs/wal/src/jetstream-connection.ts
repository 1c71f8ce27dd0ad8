import { CairnError, type Logger, type Runtime, STORE_FULL } from '@cairn/base';
import { JetStreamApiError, type JetStreamClient, type JetStreamManager, jetstream, jetstreamManager } from '@nats-io/jetstream';
import { connect, credsAuthenticator, type NatsConnection, type NodeConnectionOptions } from '@nats-io/transport-node';
import type { WalState } from './wal.ts';
import { channelMissing, storeUnavailable, WrongTailError } from './wal-errors.ts';

/** What the servers ask for to let us in; PEM and other texts, no files. */
export interface JetStreamAccess {
  readonly tls?: { readonly ca: string; readonly cert?: string; readonly key?: string };
  readonly user?: { readonly name: string; readonly password: string };
  readonly token?: string;
  /** Content of a .creds file: JWT and seed. */
  readonly credentials?: string;
}

export interface JetStreamConnectionOptions {
  /** wal.nats.servers: `nats://host:port`, any members of the cluster. */
  readonly servers: readonly string[];
  readonly runtime: Runtime;
  readonly logger: Logger;
  readonly access?: JetStreamAccess;
  /** More, as the NATS client takes it. */
  readonly connection?: Partial<NodeConnectionOptions>;
  /** wal.nats.requestTimeoutMs: after that an append or a call has an unknown outcome. */
  readonly requestTimeoutMs?: number;
  /** Ends the wait for the first connection. */
  readonly signal?: AbortSignal;
}

export interface JetStreamConnection {
  readonly nats: NatsConnection;
  readonly client: JetStreamClient;
  readonly manager: JetStreamManager;
  readonly requestTimeoutMs: number;
}

const DEFAULT_REQUEST_TIMEOUT_MS = 5000;
const CONNECT_TIMEOUT_MS = 3000;
const RECONNECT_WAIT_MS = 250;
const RETRY_MAX_MS = 2000;
/** A server that hangs is left after at most two pings without an answer. */
const PING_INTERVAL_MS = 3000;
const MAX_PINGS_OUT = 2;

/** Connects, and waits for a server that is not there yet with a line in the log; later it reconnects for ever. */
export async function connectJetStream(options: JetStreamConnectionOptions): Promise<JetStreamConnection> {
  const { runtime, logger, signal } = options;
  const requestTimeoutMs = options.requestTimeoutMs ?? DEFAULT_REQUEST_TIMEOUT_MS;
  for (let delay = RECONNECT_WAIT_MS; ; delay = Math.min(delay * 2, RETRY_MAX_MS)) {
    if (signal?.aborted) throw new CairnError('Cancelled', 'connecting to NATS was cancelled');
    let nats: NatsConnection | undefined;
    try {
      nats = await connect({
        name: 'cairn-wal',
        timeout: CONNECT_TIMEOUT_MS,
        maxReconnectAttempts: -1,
        reconnectTimeWait: RECONNECT_WAIT_MS,
        pingInterval: PING_INTERVAL_MS,
        maxPingOut: MAX_PINGS_OUT,
        ...accessOptions(options.access ?? {}),
        ...options.connection,
        servers: [...options.servers],
      });
      const client = jetstream(nats, { timeout: requestTimeoutMs });
      const manager = await jetstreamManager(nats, { timeout: requestTimeoutMs });
      void logStatus(nats, logger);
      return { nats, client, manager, requestTimeoutMs };
    } catch (error) {
      await nats?.close();
      logger.warn({ servers: options.servers, error }, 'waiting for NATS JetStream');
      await runtime.sleep(delay * (0.5 + runtime.random() / 2), signal);
    }
  }
}

function accessOptions({ tls, user, token, credentials }: JetStreamAccess): Partial<NodeConnectionOptions> {
  return {
    ...(tls ? { tls } : {}),
    ...(user ? { user: user.name, pass: user.password } : {}),
    ...(token === undefined ? {} : { token }),
    ...(credentials === undefined ? {} : { authenticator: credsAuthenticator(Buffer.from(credentials)) }),
  };
}

async function logStatus(nats: NatsConnection, logger: Logger): Promise<void> {
  for await (const status of nats.status()) {
    if (status.type === 'disconnect') logger.warn({ server: status.server }, 'connection to NATS is lost, reconnecting');
    else if (status.type === 'reconnect') logger.info({ server: status.server }, 'connected to NATS again');
    else if (status.type === 'error') logger.warn({ error: status.error }, 'NATS reports an error');
  }
}

/** JetStream's own error numbers that we act on. */
const STREAM_NOT_FOUND = 10059;
const WRONG_LAST_SEQUENCE = 10071;
const WRONG_LAST_SEQUENCE_CONSTANT = 10164;

/** No room: of the account or server for a stream, of the server's storage, or of its disk (`max_file`, a full volume). */
const NO_ROOM: readonly number[] = [10023, 10028, 10047, 10077];

/**
 * A cluster that is not ready: too few members known or leaders elected. 10004 cluster incomplete, 10005 no suitable peers for placement,
 * 10008 temporarily unavailable, 10009 not the leader (nats-server's errors.json).
 */
const NOT_READY: readonly number[] = [10004, 10005, 10008, 10009];

export function isStreamMissing(error: unknown): boolean {
  return error instanceof JetStreamApiError && error.code === STREAM_NOT_FOUND;
}

/** An error of the client as ours. The number in a wrong-tail error is not read: only the log tells who wrote. */
export function asWalError(error: unknown, channel: string, what: string, expectedLast?: number): CairnError {
  if (error instanceof CairnError) return error;
  if (isStreamMissing(error)) return channelMissing(channel);
  if (
    expectedLast !== undefined &&
    error instanceof JetStreamApiError &&
    (error.code === WRONG_LAST_SEQUENCE || error.code === WRONG_LAST_SEQUENCE_CONSTANT)
  ) {
    return new WrongTailError(channel, expectedLast, error);
  }
  if (error instanceof JetStreamApiError && NO_ROOM.includes(error.code)) {
    return new CairnError(
      'StoreUnavailable',
      `write-ahead log: JetStream has no room for ${what} of channel ${channel} (${error.message}): it goes on when its storage limit or volume was enlarged`,
      { cause: error, extraInfo: { [STORE_FULL]: 'jetstream' } },
    );
  }
  return storeUnavailable(channel, what, error);
}

/** Whether a request met a JetStream cluster whose members do not know each other yet, or that elects a leader: over within seconds. */
export function isClusterNotReady(error: unknown): boolean {
  const cause = error instanceof CairnError ? error.cause : error;
  return cause instanceof JetStreamApiError && NOT_READY.includes(cause.code);
}

/** What reading and following need of a channel's stream. */
export interface ChannelStream {
  readonly channel: string;
  readonly stream: string;
  readonly subjectPrefix: string;
  readonly connection: JetStreamConnection;
  readonly runtime: Runtime;
  readonly logger: Logger;
  state(): Promise<WalState>;
}
