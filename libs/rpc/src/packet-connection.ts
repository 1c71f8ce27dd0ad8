import { connect, type Socket } from 'node:net';
import { CairnError, type Runtime, type TimerHandle } from '@cairn/base';
import { decodeFailure } from './error-trailer.ts';
import { CALL, CANCEL, ConnectionReader, FAILURE, MAGIC, MAX_UNREAD_BYTES, PING, PONG, REPLY, writePacket } from './packet.ts';

/** A peer that cannot be reached for so long is not there, ms. */
const CONNECT_TIMEOUT_MS = 3_000;
/** Time between two pings, ms, and how many may stay without any sign of life. */
const PING_EVERY_MS = 5_000;
const MAX_SILENT_PINGS = 2;
const NOTHING = new Uint8Array(0);
const CLOSED = 'the transport was closed';
const MAX_CALL_ID = 0xffff_ffff;

/** Who waits for the answer of a call. */
export interface Waiting {
  reply(bytes: Buffer): void;
  /** The other side's own error. */
  fail(error: CairnError): void;
  /** The connection is gone; what became of the call is not known. */
  lost(why: string): void;
}

/** The calling side of one connection: from the first call until it is lost or closed, then never again. */
export class PacketConnection {
  readonly #address: string;
  readonly #runtime: Runtime;
  readonly #socket: Socket;
  readonly #waiting = new Map<number, Waiting>();
  readonly #onGone: (understood: boolean) => void;
  #connected = false;
  /** The other side has said that it speaks packets. */
  #understood = false;
  #nextId = 1;
  #silentPings = 0;
  #timer: TimerHandle;
  #gone = false;

  /**
   * Connects to `host:port`; calls may be sent at once. `onGone`: it takes no more calls; not `understood`: something is there that does not
   * speak packets.
   */
  constructor(address: string, runtime: Runtime, onGone: (understood: boolean) => void) {
    this.#address = address;
    this.#runtime = runtime;
    this.#onGone = onGone;
    const colon = address.lastIndexOf(':');
    const host = address.slice(0, colon).replace(/^\[(.*)\]$/, '$1');
    const reader = new ConnectionReader(({ kind, call, body }) => this.#take(kind, call, body));
    this.#socket = connect({ host, port: Number(address.slice(colon + 1)), noDelay: true });
    this.#socket.on('data', (chunk) => {
      this.#silentPings = 0;
      try {
        reader.push(chunk);
        this.#understood ||= reader.begun;
      } catch (error) {
        this.#lost(`sent what cannot be read (${error instanceof Error ? error.message : error})`);
      }
    });
    this.#socket.on('error', (error) => this.#lost(error.message));
    this.#socket.on('close', () => this.#lost('the connection was closed'));
    this.#timer = runtime.after(CONNECT_TIMEOUT_MS, () => this.#lost(`no connection within ${CONNECT_TIMEOUT_MS} ms`));
    this.#socket.once('connect', () => {
      this.#connected = true;
      this.#timer.cancel();
      if (!this.#gone) this.#ping();
    });
    this.#socket.write(MAGIC);
  }

  /** Sends a call; the answer comes to `waiting`, once. Returns its id, for `cancel`. */
  call(head: Uint8Array, request: Uint8Array, waiting: Waiting): number {
    if (this.#socket.writableLength > MAX_UNREAD_BYTES)
      throw new CairnError('Unavailable', `${this.#address} leaves more than ${MAX_UNREAD_BYTES} bytes unread`);
    const id = this.#freeId();
    writePacket(this.#socket, CALL, id, request, head);
    this.#waiting.set(id, waiting);
    return id;
  }

  /** The caller waits no more; the other side learns it. */
  cancel(id: number): void {
    if (this.#waiting.delete(id) && !this.#gone) writePacket(this.#socket, CANCEL, id, NOTHING);
  }

  close(): void {
    this.#lost(CLOSED);
  }

  #freeId(): number {
    do this.#nextId = this.#nextId === MAX_CALL_ID ? 1 : this.#nextId + 1;
    while (this.#waiting.has(this.#nextId));
    return this.#nextId;
  }

  #take(kind: number, call: number, body: Buffer): void {
    if (kind === PONG) return;
    const waiting = this.#waiting.get(call);
    // Cancelled meanwhile.
    if (!waiting) return;
    this.#waiting.delete(call);
    if (kind === REPLY) waiting.reply(body);
    else if (kind === FAILURE) waiting.fail(decodeFailure(body));
    else waiting.fail(new CairnError('Internal', `${this.#address} answered with a packet of kind ${kind}`));
  }

  /** A peer that is gone without a word (its machine, the network) is noticed by its silence. */
  #ping(): void {
    this.#timer = this.#runtime.after(PING_EVERY_MS, () => {
      if (this.#silentPings++ >= MAX_SILENT_PINGS) return this.#lost(`silent for ${MAX_SILENT_PINGS * PING_EVERY_MS} ms`);
      writePacket(this.#socket, PING, 0, NOTHING);
      this.#ping();
    });
  }

  #lost(why: string): void {
    if (this.#gone) return;
    this.#gone = true;
    this.#timer.cancel();
    this.#onGone(this.#understood || !this.#connected || why === CLOSED);
    this.#socket.destroy();
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const one of waiting) one.lost(why);
  }
}
