import type { Logger } from './logger.ts';

/** Anything that is started once and stopped once. */
export interface Service {
  readonly name: string;
  start(): Promise<void>;
  /** Drains and releases; never throws for what is already gone. */
  stop(): Promise<void>;
}

/** Starts parts in order and stops them in reverse; a failed start stops what had started. */
export class Lifecycle {
  readonly #parts: Service[] = [];
  readonly #started: Service[] = [];
  readonly #logger: Logger;

  constructor(logger: Logger) {
    this.#logger = logger;
  }

  add<T extends Service>(part: T): T {
    this.#parts.push(part);
    return part;
  }

  async start(): Promise<void> {
    try {
      for (const part of this.#parts) {
        this.#started.push(part);
        await part.start();
      }
    } catch (error) {
      await this.stop();
      throw error;
    }
  }

  async stop(): Promise<void> {
    for (let part = this.#started.pop(); part; part = this.#started.pop()) {
      try {
        await part.stop();
      } catch (error) {
        this.#logger.warn({ part: part.name, error }, 'part did not stop cleanly');
      }
    }
  }
}
