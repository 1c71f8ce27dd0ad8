import { createServer, type Server } from 'node:http';
import type { Service } from '@cairn/base';

export const logTraceIds = (): Record<string, unknown> => ({});
export async function startTelemetry(_options: unknown): Promise<Service> {
  return { name: 'telemetry', start: async () => undefined, stop: async () => undefined };
}
export class HealthServer implements Service {
  readonly name = 'health';
  readonly #o: { host: string; port: number; checks: Readonly<Record<string, () => Promise<void>>> };
  #server: Server | undefined;
  constructor(o: { host: string; port: number; checks: Readonly<Record<string, () => Promise<void>>> } & Record<string, unknown>) {
    this.#o = o;
  }
  async start(): Promise<void> {
    this.#server = createServer(async (_req, res) => {
      const bad: Record<string, string> = {};
      for (const [name, check] of Object.entries(this.#o.checks)) await check().catch((e) => (bad[name] = String(e)));
      res.writeHead(Object.keys(bad).length ? 503 : 200).end(JSON.stringify(bad));
    });
    await new Promise<void>((r) => this.#server?.listen(this.#o.port, this.#o.host, r));
  }
  async stop(): Promise<void> {
    this.#server?.close();
  }
}
