import { asCairnError, type Logger, type Runtime, type Service } from '@cairn/base';

/** A service that may find that it must step down: its lease is lost, so nothing it holds may be acted on any more. */
export interface SteppingService extends Service {
  readonly lost?: AbortSignal;
}

const RESTART_FIRST_MS = 100;
const RESTART_MAX_MS = 5_000;

/**
 * Keeps one role running: when its service steps down, it is stopped and a new one is made, with back-off, until `stop`. The process stays: its
 * listeners and stores are as good as before, only what the lease stood for is gone.
 */
export class RoleSupervisor<T extends SteppingService> implements Service {
  readonly name: string;
  readonly #make: () => T;
  readonly #runtime: Runtime;
  readonly #logger: Logger;
  readonly #stopping = new AbortController();
  #current: T | undefined;
  #running: Promise<void> = Promise.resolve();

  constructor(name: string, runtime: Runtime, logger: Logger, make: () => T) {
    this.name = name;
    this.#make = make;
    this.#runtime = runtime;
    this.#logger = logger;
  }

  /** The service that serves now; undefined between two of them. */
  get current(): T | undefined {
    return this.#current;
  }

  /** Starts the first service; its failure to start is the caller's, later ones are tried again. */
  async start(): Promise<void> {
    const service = this.#make();
    await service.start();
    this.#current = service;
    this.#running = this.#watch(service);
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    // It serves while it stops: a streaming node that drains must be asked for its channels.
    await this.#current?.stop();
    this.#current = undefined;
    await this.#running;
  }

  async #watch(first: T): Promise<void> {
    let service: T | undefined = first;
    let delay = RESTART_FIRST_MS;
    while (!this.#stopping.signal.aborted) {
      if (service) {
        await lostOrStopped(service.lost, this.#stopping.signal);
        if (this.#stopping.signal.aborted) return;
        this.#logger.warn(
          { role: this.name, reason: asCairnError(service.lost?.reason).message },
          'lease lost: stepping down and starting again',
        );
        this.#current = undefined;
        await service.stop().catch((error: unknown) => this.#logger.warn({ role: this.name, error }, 'did not stop cleanly'));
        service = undefined;
      }
      let next: T | undefined;
      try {
        next = this.#make();
        await next.start();
        if (this.#stopping.signal.aborted) return await next.stop();
        service = next;
        this.#current = next;
        delay = RESTART_FIRST_MS;
      } catch (error) {
        this.#logger.warn({ role: this.name, error, delayMs: delay }, 'cannot start again yet');
        // What it began would go on: its registration, kept alive, would keep the next one out for good.
        await next?.stop().catch((cause: unknown) => this.#logger.warn({ role: this.name, error: cause }, 'did not stop cleanly'));
        await this.#runtime.sleep(delay, this.#stopping.signal).catch(() => undefined);
        delay = Math.min(delay * 2, RESTART_MAX_MS);
      }
    }
  }
}

function lostOrStopped(lost: AbortSignal | undefined, stopping: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (lost?.aborted || stopping.aborted) return resolve();
    lost?.addEventListener('abort', () => resolve(), { once: true });
    stopping.addEventListener('abort', () => resolve(), { once: true });
  });
}
