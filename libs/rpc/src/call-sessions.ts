import { CairnError, type Logger, type Runtime, type TimerHandle } from '@cairn/base';
import { type Call, CallBatch } from '@cairn/proto/cairn/services';
import type { ServerDuplexStream } from '@grpc/grpc-js';
import { BatchSender } from './batch-sender.ts';
import { encodeAnswers, type SentAnswer } from './call-messages.ts';
import { MAX_UNREAD_BYTES } from './call-stream.ts';
import type { CallContext } from './definition.ts';
import { encodeFailure, toServiceError } from './error-trailer.ts';
import { asBuffer, plainBytes } from './untyped.ts';

/** Answers one request of a method, bytes to bytes; throws what the caller shall get. */
export type UnaryWork = (request: Buffer, context: CallContext, headers: Readonly<Record<string, string>>) => Promise<Uint8Array>;

export interface CallSessionsOptions {
  readonly runtime: Runtime;
  readonly logger: Logger;
  /** Who serves a path; undefined: nobody. */
  find(path: string): UnaryWork | undefined;
  /** Calls of one stream under way at once; further ones get TooManyRequests and have done nothing. */
  readonly maxOpenCalls?: number;
}

/** Far above what a proxy has under way (`proxy.maxConcurrentRequests`, a call for each shard of it). */
const MAX_OPEN_CALLS = 16_384;

type Exchange = ServerDuplexStream<Buffer, Buffer>;
const NOTHING = new Uint8Array(0);

/** The streams of calls that reach one server. */
export class CallSessions {
  readonly #options: CallSessionsOptions;
  readonly #sessions = new Set<CallSession>();
  #stopping = false;

  constructor(options: CallSessionsOptions) {
    this.#options = options;
  }

  /** Serves one stream until either side ends it. */
  readonly serve = (stream: Exchange): void => {
    const session = new CallSession(stream, this.#options, () => this.#sessions.delete(session));
    this.#sessions.add(session);
    if (this.#stopping) session.stop();
  };

  /** Takes no new calls; each stream ends when those under way on it have. */
  stop(): void {
    this.#stopping = true;
    for (const session of this.#sessions) session.stop();
  }
}

/** The serving side of one stream of calls. */
class CallSession {
  readonly #stream: Exchange;
  readonly #options: CallSessionsOptions;
  readonly #sender: BatchSender<SentAnswer>;
  readonly #calls = new Map<number, StreamedCall>();
  readonly #onEnd: () => void;
  readonly #maxOpenCalls: number;
  /** Calls whose work goes on, those that were cancelled included. */
  #open = 0;
  #stopping = false;
  #ended = false;

  constructor(stream: Exchange, options: CallSessionsOptions, onEnd: () => void) {
    this.#stream = stream;
    this.#options = options;
    this.#onEnd = onEnd;
    this.#maxOpenCalls = options.maxOpenCalls ?? MAX_OPEN_CALLS;
    this.#sender = new BatchSender((bytes, done) => {
      if (this.#ended) return;
      stream.write(bytes, () => {
        done();
        this.#endWhenIdle();
      });
    }, encodeAnswers);
    stream.on('data', (bytes: Buffer) => this.#take(bytes));
    stream.on('end', () => this.#end());
    stream.on('cancelled', () => this.#end());
    stream.on('error', () => this.#end());
  }

  stop(): void {
    this.#stopping = true;
    this.#endWhenIdle();
  }

  /** The caller takes no more answers: nobody waits for what is under way. */
  #end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#onEnd();
    this.#sender.clear();
    for (const call of this.#calls.values()) call.cancel(new CairnError('Cancelled', 'the caller has gone'));
    this.#calls.clear();
    this.#stream.end();
  }

  #endWhenIdle(): void {
    if (this.#stopping && !this.#ended && this.#calls.size === 0 && this.#sender.idle) this.#end();
  }

  #break(error: CairnError): void {
    this.#options.logger.warn({ error, peer: this.#stream.getPeer() }, 'a stream of calls was broken off');
    this.#stream.emit('error', toServiceError(error));
  }

  #take(bytes: Buffer): void {
    let batch: CallBatch;
    try {
      batch = CallBatch.decode(plainBytes(bytes));
    } catch (error) {
      this.#break(new CairnError('InvalidParameter', 'calls that do not decode', { cause: error }));
      return;
    }
    for (const call of batch.calls) void this.#answer(call);
    for (const id of batch.cancelled) this.#calls.get(id)?.cancel(new CairnError('Cancelled', 'cancelled by the caller'));
  }

  async #answer({ id, path, timeoutMs, headers, request }: Call): Promise<void> {
    const { runtime, find } = this.#options;
    let call: StreamedCall | undefined;
    try {
      if (this.#stopping) throw new CairnError('Unavailable', `${path}: this node is stopping`);
      const work = find(path);
      if (!work) throw new CairnError('NotSupported', `${path}: no handler`);
      if (this.#open >= this.#maxOpenCalls)
        throw new CairnError('TooManyRequests', `${path}: ${this.#maxOpenCalls} calls of one stream are under way already`);
      call = new StreamedCall(runtime, timeoutMs, headers);
      this.#open++;
      this.#calls.set(id, call);
      this.#send({ id, response: await work(asBuffer(request), call, headers), failure: '' }, call);
    } catch (error) {
      this.#send({ id, response: NOTHING, failure: encodeFailure(error) }, call);
    } finally {
      if (call !== undefined) {
        call.release();
        this.#open--;
        if (this.#calls.get(id) === call) this.#calls.delete(id);
      }
      this.#endWhenIdle();
    }
  }

  #send(answer: SentAnswer, call: StreamedCall | undefined): void {
    if (call?.over || this.#ended) return;
    this.#sender.push(answer, answer.response.length + answer.failure.length);
    if (this.#sender.pendingBytes > MAX_UNREAD_BYTES)
      this.#break(new CairnError('Unavailable', `answers of more than ${MAX_UNREAD_BYTES} bytes were left unread`));
  }
}

/** What a handler sees of one call. */
class StreamedCall implements CallContext {
  readonly metadata: ReadonlyMap<string, string>;
  readonly #runtime: Runtime;
  readonly #until: number;
  #controller: AbortController | undefined;
  #over: CairnError | undefined;
  #timer: TimerHandle | undefined;
  #answered = false;

  constructor(runtime: Runtime, timeoutMs: number, headers: Readonly<Record<string, string>>) {
    this.#runtime = runtime;
    this.#until = timeoutMs === 0 ? Number.POSITIVE_INFINITY : runtime.monotonic() + timeoutMs;
    this.metadata = new Map(Object.entries(headers));
  }

  /** Nobody waits for the answer any more. */
  get over(): boolean {
    return this.#over !== undefined;
  }

  /** Made when the handler first asks for it; from then on the deadline ends the work even when the caller says nothing. */
  get signal(): AbortSignal {
    if (!this.#controller) {
      this.#controller = new AbortController();
      if (this.#over) this.#controller.abort(this.#over);
      else if (!this.#answered && Number.isFinite(this.#until))
        this.#timer = this.#runtime.after(this.remaining(), () =>
          this.cancel(new CairnError('Timeout', 'the deadline of the call has passed')),
        );
    }
    return this.#controller.signal;
  }

  remaining(): number {
    return Math.max(0, this.#until - this.#runtime.monotonic());
  }

  cancel(reason: CairnError): void {
    if (this.#answered) return;
    this.#over ??= reason;
    this.#timer?.cancel();
    this.#controller?.abort(this.#over);
  }

  release(): void {
    this.#answered = true;
    this.#timer?.cancel();
  }
}
