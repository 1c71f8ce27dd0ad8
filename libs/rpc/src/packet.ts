import { CairnError } from '@cairn/base';

/**
 * How calls between our own services travel (docs/decisions/005): packets on a plain TCP connection, many calls at once on each. All numbers are
 * little-endian.
 *
 *     packet   u32 length of what follows · u8 kind · u32 call · body
 *     CALL     u32 timeout ms (0: none) · u16 length · path · u16 length · headers (JSON object, empty: none) · request
 *     REPLY    response
 *     FAILURE  the error as JSON, as in the trailer over gRPC
 *     CANCEL, PING, PONG   nothing
 *
 * Both sides begin with MAGIC. A port that knows only HTTP/2 does not: its caller turns to gRPC.
 */
export type PacketKind = 1 | 2 | 3 | 4 | 5 | 6;
export const CALL = 1;
export const REPLY = 2;
export const FAILURE = 3;
export const CANCEL = 4;
export const PING = 5;
export const PONG = 6;

/** First bytes of a connection that carries packets; HTTP/2 begins with `P`. */
export const MAGIC = Buffer.from('CRN1', 'latin1');
/** Largest packet, bytes: far above what the front takes, so that only a broken peer meets it. */
export const MAX_PACKET_BYTES = 1 << 30;
/** Bytes that a peer may leave unread before its connection is given up. */
export const MAX_UNREAD_BYTES = 1 << 28;

const LENGTH_BYTES = 4;
const HEAD_BYTES = 5;
/** Bodies up to this are copied behind their head and written at once; larger ones are written as they are. */
const COPY_BYTES = 64 << 10;

export interface Packet {
  readonly kind: number;
  readonly call: number;
  readonly body: Buffer;
}

/** What of a socket a packet is written to. */
export interface PacketSink {
  write(bytes: Uint8Array): unknown;
  cork(): void;
  uncork(): void;
}

export function writePacket(sink: PacketSink, kind: PacketKind, call: number, body: Uint8Array, prefix: Uint8Array = EMPTY): void {
  const length = HEAD_BYTES + prefix.length + body.length;
  if (length > MAX_PACKET_BYTES)
    throw new CairnError('ParameterTooLarge', `a message of ${length} bytes, at most ${MAX_PACKET_BYTES} are allowed`);
  const copied = body.length <= COPY_BYTES;
  const head = Buffer.allocUnsafe(LENGTH_BYTES + HEAD_BYTES + prefix.length + (copied ? body.length : 0));
  head.writeUInt32LE(length, 0);
  head[4] = kind;
  head.writeUInt32LE(call, 5);
  head.set(prefix, LENGTH_BYTES + HEAD_BYTES);
  if (copied) {
    head.set(body, LENGTH_BYTES + HEAD_BYTES + prefix.length);
    sink.write(head);
    return;
  }
  sink.cork();
  sink.write(head);
  sink.write(body);
  sink.uncork();
}

const EMPTY = Buffer.alloc(0);

/** What stands before the request of a CALL. */
export interface CallHead {
  readonly path: string;
  /** ms; 0: none. */
  readonly timeoutMs: number;
  readonly headers: Readonly<Record<string, string>>;
}

export function encodeCallHead(path: Buffer, timeoutMs: number, headers: Buffer): Buffer {
  const head = Buffer.allocUnsafe(8 + path.length + headers.length);
  head.writeUInt32LE(timeoutMs, 0);
  head.writeUInt16LE(path.length, 4);
  head.set(path, 6);
  head.writeUInt16LE(headers.length, 6 + path.length);
  head.set(headers, 8 + path.length);
  return head;
}

/** The head and the request behind it. Throws on bytes that are no CALL. */
export function decodeCall(body: Buffer): { readonly head: CallHead; readonly request: Buffer } {
  const pathEnd = 6 + body.readUInt16LE(4);
  const headersEnd = pathEnd + 2 + body.readUInt16LE(pathEnd);
  if (headersEnd > body.length) throw new CairnError('InvalidParameter', `a call of ${body.length} bytes ends within its headers`);
  const headers = headersEnd > pathEnd + 2 ? (JSON.parse(body.toString('utf8', pathEnd + 2, headersEnd)) as Record<string, string>) : {};
  return {
    head: { path: body.toString('latin1', 6, pathEnd), timeoutMs: body.readUInt32LE(0), headers },
    request: body.subarray(headersEnd),
  };
}

/** Cuts a stream of bytes into packets. Small packets are views of the chunk that brought them. */
export class PacketReader {
  readonly #onPacket: (packet: Packet) => void;
  /** The beginning of a length. */
  #rest: Buffer = EMPTY;
  /** A packet that is still coming, and how much of it is there. */
  #open: Buffer | undefined;
  #filled = 0;

  constructor(onPacket: (packet: Packet) => void) {
    this.#onPacket = onPacket;
  }

  /** Throws on what cannot be a packet; the connection is of no use then. */
  push(chunk: Buffer): void {
    let at = 0;
    if (this.#open) {
      at = chunk.copy(this.#open, this.#filled);
      this.#filled += at;
      if (this.#filled < this.#open.length) return;
      const whole = this.#open;
      this.#open = undefined;
      this.#emit(whole);
    }
    const bytes = this.#rest.length > 0 ? Buffer.concat([this.#rest, chunk.subarray(at)]) : at > 0 ? chunk.subarray(at) : chunk;
    this.#rest = EMPTY;
    at = 0;
    while (bytes.length - at >= LENGTH_BYTES) {
      const length = bytes.readUInt32LE(at);
      if (length < HEAD_BYTES || length > MAX_PACKET_BYTES) throw new CairnError('InvalidParameter', `a packet of ${length} bytes`);
      at += LENGTH_BYTES;
      if (bytes.length - at < length) {
        this.#open = Buffer.allocUnsafeSlow(length);
        this.#filled = bytes.copy(this.#open, 0, at);
        return;
      }
      this.#emit(bytes.subarray(at, at + length));
      at += length;
    }
    if (at < bytes.length) this.#rest = bytes.subarray(at);
  }

  #emit(packet: Buffer): void {
    this.#onPacket({ kind: packet[0] ?? 0, call: packet.readUInt32LE(1), body: packet.subarray(HEAD_BYTES) });
  }
}

/** Reads a connection from its first byte: MAGIC, then packets. */
export class ConnectionReader {
  readonly #packets: PacketReader;
  #seen: Buffer = EMPTY;

  constructor(onPacket: (packet: Packet) => void) {
    this.#packets = new PacketReader(onPacket);
  }

  /** MAGIC has come. */
  get begun(): boolean {
    return this.#seen.length === MAGIC.length;
  }

  /** Throws on what is not the beginning of a connection, or no packet. */
  push(chunk: Buffer): void {
    if (this.begun) {
      this.#packets.push(chunk);
      return;
    }
    const all = Buffer.concat([this.#seen, chunk]);
    this.#seen = all.subarray(0, MAGIC.length);
    if (!this.#seen.equals(MAGIC.subarray(0, this.#seen.length))) {
      this.#seen = EMPTY;
      throw new CairnError('InvalidParameter', 'not the beginning of a connection of packets');
    }
    if (all.length > MAGIC.length) this.#packets.push(all.subarray(MAGIC.length));
  }
}
