import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { CairnError, type Logger, type Runtime, type Service } from '@cairn/base';
import type { MetricsSource } from './telemetry.ts';

export interface HealthServerOptions {
  /** http.host */
  readonly host: string;
  /** http.port; 0 picks a free one, see `port`. */
  readonly port: number;
  readonly metrics: MetricsSource;
  /** What the process needs before it can serve, by name; a check that rejects or takes too long is not ready. May grow while it runs. */
  readonly checks: Readonly<Record<string, () => Promise<void>>>;
  readonly runtime: Runtime;
  readonly logger: Logger;
  /** http.checkTimeoutMs */
  readonly checkTimeoutMs?: number;
}

const DEFAULT_CHECK_TIMEOUT_MS = 2000;
const MAX_CONNECTIONS = 100;
const REQUEST_TIMEOUT_MS = 10_000;

/**
 * The port that operators look at: `/metrics` (Prometheus text), `/healthz` (200 while the process answers at all) and `/readyz` (200 when every
 * check passes, else 503; JSON says which does not and why).
 */
export class HealthServer implements Service {
  readonly name = 'health';
  readonly #options: HealthServerOptions;
  readonly #checkTimeoutMs: number;
  #server: Server | undefined;

  constructor(options: HealthServerOptions) {
    this.#options = options;
    this.#checkTimeoutMs = options.checkTimeoutMs ?? DEFAULT_CHECK_TIMEOUT_MS;
  }

  /** The port it listens on; 0 before `start`. */
  get port(): number {
    const address = this.#server?.address();
    return typeof address === 'object' && address ? address.port : 0;
  }

  async start(): Promise<void> {
    const server = createServer({ requestTimeout: REQUEST_TIMEOUT_MS, headersTimeout: REQUEST_TIMEOUT_MS }, (request, response) => {
      this.#answer(request, response).catch((error: unknown) => {
        this.#options.logger.error({ error, url: request.url }, 'health request failed');
        if (!response.headersSent) json(response, 500, { error: 'internal error' });
        else response.destroy();
      });
    });
    server.maxConnections = MAX_CONNECTIONS;
    this.#server = server;
    const { host, port } = this.#options;
    await new Promise<void>((resolve, reject) => {
      server.once('error', (error) =>
        reject(new CairnError('Unavailable', `health server cannot listen on ${host}:${port}: ${error.message}`, { cause: error })),
      );
      server.listen(port, host, resolve);
    });
  }

  async stop(): Promise<void> {
    const server = this.#server;
    if (!server) return;
    this.#server = undefined;
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    server.closeAllConnections();
    await closed;
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (request.method !== 'GET' && request.method !== 'HEAD')
      return json(response, 405, { error: `method ${request.method} is not allowed` });
    const path = (request.url ?? '').split('?', 1)[0];
    switch (path) {
      case '/metrics':
        return this.#options.metrics.handleMetrics(request, response);
      case '/healthz':
        return json(response, 200, { status: 'ok' });
      case '/readyz': {
        const checks = await this.#runChecks();
        const ready = Object.values(checks).every((state) => state === 'ok');
        return json(response, ready ? 200 : 503, { status: ready ? 'ready' : 'not ready', checks });
      }
      default:
        return json(response, 404, { error: `no such page; there are /metrics, /healthz, /readyz` });
    }
  }

  /** `ok`, or why not, for each check. */
  async #runChecks(): Promise<Record<string, string>> {
    const results = await Promise.all(
      Object.entries(this.#options.checks).map(async ([name, check]) => [name, await this.#runCheck(check)] as const),
    );
    return Object.fromEntries(results);
  }

  async #runCheck(check: () => Promise<void>): Promise<string> {
    const { promise: late, resolve } = Promise.withResolvers<string>();
    const timer = this.#options.runtime.after(this.#checkTimeoutMs, () => resolve(`no answer after ${this.#checkTimeoutMs} ms`));
    try {
      return await Promise.race([check().then(() => 'ok'), late]);
    } catch (error) {
      return error instanceof Error ? error.message : String(error);
    } finally {
      timer.cancel();
    }
  }
}

function json(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(`${JSON.stringify(body)}\n`);
}
