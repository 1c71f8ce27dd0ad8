import { createServer, type Server, type Socket } from 'node:net';
import { CairnError, type Logger, type Runtime, type TimerHandle } from '@cairn/base';
import type { CallContext } from './definition.ts';
import { encodeFailure } from './error-trailer.ts';
import {
  CALL,
  CANCEL,
  ConnectionReader,
  decodeCall,
  FAILURE,
  MAGIC,
  MAX_UNREAD_BYTES,
  type Packet,
  PING,
  PONG,
  REPLY,
  writePacket,
} from './packet.ts';

/** Answers one request of a method, bytes to bytes; throws what the caller shall get. */
export type UnaryWork = (request: Buffer, context: CallContext, headers: Readonly<Record<string, string>>) => Promise<Uint8Array>;

export interface PacketPortOptions {
  readonly runtime: Runtime;
  readonly logger: Logger;
  /** Who serves a path; undefined: nobody. */
  find(path: string): UnaryWork | undefined;
  /** A connection that does not speak packets: gRPC. Its first bytes are still in it. */
  other(socket: Socket): void;
}

const NOTHING = new Uint8Array(0);

/** A port that speaks packets with our own services and gRPC with everybody else, told apart by a connection's first byte. */
export class PacketPort {
  readonly #options: PacketPortOptions;
  readonly #server: Server;
  readonly #sessions = new Set<PacketSession>();
  /** Connections that have not said yet what they speak. */
  readonly #silent = new Set<Socket>();

  constructor(options: PacketPortOptions) {
    this.#options = options;
    this.#server = createServer({ noDelay: true }, (socket) => this.#accept(socket));
  }

  /** Binds and serves; port 0 takes a free one. Returns the port. */
  listen(host: string, port: number): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#server.once('error', (error) =>
        reject(new CairnError('Unavailable', `cannot listen on ${host}:${port}: ${error.message}`, { cause: error })),
      );
      this.#server.listen(port, host, () => {
        const bound = this.#server.address();
        resolve(bound !== null && typeof bound === 'object' ? bound.port : port);
      });
    });
  }

  /** Takes no new connections and calls; resolves when those under way have ended. */
  async stop(): Promise<void> {
    this.#server.close();
    for (const socket of this.#silent) socket.destroy();
    await Promise.all([...this.#sessions].map((session) => session.stop()));
  }

  /** Cuts what is left. */
  cut(): void {
    for (const session of this.#sessions) session.cut();
  }

  #accept(socket: Socket): void {
    const onError = (): void => undefined;
    socket.on('error', onError);
    this.#silent.add(socket);
    socket.once('close', () => this.#silent.delete(socket));
    socket.once('data', (first) => {
      this.#silent.delete(socket);
      socket.pause();
      if (first[0] !== MAGIC[0]) {
        socket.unshift(first);
        socket.off('error', onError);
        this.#options.other(socket);
        return;
      }
      const session = new PacketSession(socket, this.#options);
      this.#sessions.add(session);
      socket.once('close', () => this.#sessions.delete(session));
      session.start(first);
    });
  }
}

/** The serving side of one connection. */
class PacketSession {
  readonly #socket: Socket;
  readonly #options: PacketPortOptions;
  readonly #calls = new Map<number, PacketCall>();
  readonly #closed: Promise<void>;
  #stopping = false;

  constructor(socket: Socket, options: PacketPortOptions) {
    this.#socket = socket;
    this.#options = options;
    this.#closed = new Promise((resolve) => socket.once('close', () => resolve()));
  }

  /** `first`: what has come already, magic included. */
  start(first: Buffer): void {
    const reader = new ConnectionReader((packet) => this.#take(packet));
    this.#socket.write(MAGIC);
    const read = (chunk: Buffer): void => {
      try {
        reader.push(chunk);
      } catch (error) {
        this.#options.logger.warn({ error, peer: this.#socket.remoteAddress }, 'a connection sent what cannot be read');
        this.#socket.destroy();
      }
    };
    this.#socket.on('data', read);
    this.#socket.once('close', () => {
      for (const call of this.#calls.values()) call.cancel(new CairnError('Cancelled', 'the caller has gone'));
      this.#calls.clear();
    });
    read(first);
    this.#socket.resume();
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    this.#endWhenIdle();
    await this.#closed;
  }

  cut(): void {
    this.#socket.destroy();
  }

  #endWhenIdle(): void {
    if (this.#stopping && this.#calls.size === 0) this.#socket.end(() => this.#socket.destroy());
  }

  #take({ kind, call, body }: Packet): void {
    if (kind === CALL) void this.#answer(call, body);
    else if (kind === PING) writePacket(this.#socket, PONG, 0, NOTHING);
    else if (kind === CANCEL) this.#calls.get(call)?.cancel(new CairnError('Cancelled', 'cancelled by the caller'));
    else throw new CairnError('InvalidParameter', `a packet of kind ${kind}`);
  }

  async #answer(id: number, body: Buffer): Promise<void> {
    const { runtime, find } = this.#options;
    let call: PacketCall | undefined;
    try {
      const { head, request } = decodeCall(body);
      if (this.#stopping) throw new CairnError('Unavailable', `${head.path}: this node is stopping`);
      const work = find(head.path);
      if (!work) throw new CairnError('NotSupported', `${head.path}: no handler`);
      call = new PacketCall(runtime, head.timeoutMs, head.headers);
      this.#calls.set(id, call);
      this.#send(REPLY, id, await work(request, call, head.headers), call);
    } catch (error) {
      this.#send(FAILURE, id, encodeFailure(error), call);
    } finally {
      call?.release();
      this.#calls.delete(id);
      this.#endWhenIdle();
    }
  }

  #send(kind: typeof REPLY | typeof FAILURE, id: number, body: Uint8Array, call: PacketCall | undefined): void {
    if (call?.over || this.#socket.destroyed) return;
    writePacket(this.#socket, kind, id, body);
    if (this.#socket.writableLength <= MAX_UNREAD_BYTES) return;
    this.#options.logger.warn({ peer: this.#socket.remoteAddress, limitBytes: MAX_UNREAD_BYTES }, 'a peer leaves its answers unread');
    this.#socket.destroy();
  }
}

/** What a handler sees of one call. */
class PacketCall implements CallContext {
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
