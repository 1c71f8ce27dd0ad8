import { CairnError, type Runtime, randomId } from '@cairn/base';
import type { CallContext } from '@cairn/rpc';

/** Database of a request that names none. */
export const DEFAULT_DATABASE = 'default';
/** Kept back from the caller's deadline, so that our own error arrives before its gRPC library gives up. */
const ANSWER_MARGIN_MS = 200;
const MAX_IDEMPOTENCY_KEY_LENGTH = 128;
/** A deadline further away is none: the Node SDK sends a day with writes, and a store that is down must not hang its caller that long. */
const NO_DEADLINE_MS = 3_600_000;

/** One public request: where it goes, under which id its effects are known, and how long it may take. */
export class RequestContext {
  readonly #call: CallContext;
  #requestId: string;
  readonly #metadata: ReadonlyMap<string, string>;
  readonly #runtime: Runtime;
  readonly #until: number;

  constructor(call: CallContext, runtime: Runtime, defaultTimeoutMs: number) {
    this.#call = call;
    this.#metadata = call.metadata;
    this.#runtime = runtime;
    const remaining = call.remaining();
    const allowed = remaining < NO_DEADLINE_MS ? remaining - Math.min(ANSWER_MARGIN_MS, remaining / 10) : defaultTimeoutMs;
    this.#until = runtime.monotonic() + allowed;
    const key = call.metadata.get('idempotency-key') ?? '';
    if (key.length > MAX_IDEMPOTENCY_KEY_LENGTH) {
      throw new CairnError(
        'InvalidParameter',
        `idempotency-key has ${key.length} characters, at most ${MAX_IDEMPOTENCY_KEY_LENGTH} are allowed`,
      );
    }
    this.#requestId = key === '' ? '' : `client-${key}`;
  }

  /** Aborts when the caller has gone. Made when it is first asked for. */
  get signal(): AbortSignal {
    return this.#call.signal;
  }

  /**
   * The client's `idempotency-key`, or a fresh id, drawn when it is first needed (reads need none). Retries inside the proxy keep it, so that
   * nothing happens twice.
   */
  get requestId(): string {
    this.#requestId ||= randomId(this.#runtime);
    return this.#requestId;
  }

  /** ms that are left for work. */
  remaining(): number {
    return Math.max(0, this.#until - this.#runtime.monotonic());
  }

  /** The database that a request means: its own field, else the `dbname` header, else `default`. SDKs usually send only the header. */
  database(dbName: string): string {
    return dbName || this.#metadata.get('dbname') || DEFAULT_DATABASE;
  }
}
