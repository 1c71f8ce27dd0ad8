import { CairnError } from '@cairn/base';
import { AnswerBatch } from '@cairn/proto/cairn/services';
import { type ClientDuplexStream, type Client as GrpcClient, type ServiceError, status } from '@grpc/grpc-js';
import { BatchSender } from './batch-sender.ts';
import { encodeCalls, type SentCall } from './call-messages.ts';
import { decodeFailure } from './error-trailer.ts';
import { plainBytes } from './untyped.ts';

export const EXCHANGE_PATH = '/cairn.internal.v1.Calls/Exchange';
/** Bytes that a peer may leave unread before its stream is given up. */
export const MAX_UNREAD_BYTES = 1 << 28;
const MAX_CALL_ID = 0xffff_ffff;
const CLOSED = 'the transport was closed';
const asItIs = (bytes: Buffer): Buffer => bytes;

/** Who waits for the answer of a call. */
export interface Waiting {
  reply(bytes: Uint8Array): void;
  /** The other side's own error. */
  fail(error: CairnError): void;
  /** The stream is gone; what became of the call is not known. */
  lost(why: string): void;
  /** The other side knows no such stream, so it has not seen the call. */
  refused(): void;
}

type Sent = SentCall | { readonly cancelled: number };

const encodeBatch = (items: Sent[]): Buffer => {
  const calls: SentCall[] = [];
  const cancelled: number[] = [];
  for (const item of items) {
    if ('cancelled' in item) cancelled.push(item.cancelled);
    else calls.push(item);
  }
  return encodeCalls(calls, cancelled);
};

/** The calling side of one stream of calls: from the first call until it is lost or closed, then never again. */
export class CallStream {
  readonly #address: string;
  readonly #stream: ClientDuplexStream<Buffer, Buffer>;
  readonly #sender: BatchSender<Sent>;
  readonly #waiting = new Map<number, Waiting>();
  readonly #onGone: (refused: boolean) => void;
  #nextId = 0;
  #gone = false;

  /** Opens the stream; calls may be sent at once. `onGone`: it takes no more calls; `refused`: nobody serves such a stream there. */
  constructor(client: GrpcClient, address: string, onGone: (refused: boolean) => void) {
    this.#address = address;
    this.#onGone = onGone;
    this.#stream = client.makeBidiStreamRequest(EXCHANGE_PATH, asItIs, asItIs);
    this.#sender = new BatchSender((bytes, done) => this.#stream.write(bytes, done), encodeBatch);
    this.#stream.on('data', (bytes: Buffer) => this.#take(bytes));
    this.#stream.on('error', (error: ServiceError) => this.#lost(error.details || error.message, error.code === status.UNIMPLEMENTED));
    this.#stream.on('end', () => this.#lost('the other side ended the stream'));
  }

  /** Sends a call; the answer comes to `waiting`, once. Returns its id, for `cancel`. */
  call(head: Buffer, timeoutMs: number, request: Uint8Array, waiting: Waiting): number {
    if (this.#sender.pendingBytes > MAX_UNREAD_BYTES)
      throw new CairnError('Unavailable', `${this.#address} leaves more than ${MAX_UNREAD_BYTES} bytes unread`);
    const id = this.#freeId();
    this.#waiting.set(id, waiting);
    this.#sender.push({ id, head, timeoutMs, request }, request.length);
    return id;
  }

  /** The caller waits no more; the other side learns it. */
  cancel(id: number): void {
    if (this.#waiting.delete(id) && !this.#gone) this.#sender.push({ cancelled: id }, 0);
  }

  close(): void {
    this.#lost(CLOSED, false);
  }

  #freeId(): number {
    do this.#nextId = this.#nextId === MAX_CALL_ID ? 1 : this.#nextId + 1;
    while (this.#waiting.has(this.#nextId));
    return this.#nextId;
  }

  #take(bytes: Buffer): void {
    let batch: AnswerBatch;
    try {
      batch = AnswerBatch.decode(plainBytes(bytes));
    } catch (error) {
      this.#lost(`sent what cannot be read (${error instanceof Error ? error.message : error})`);
      return;
    }
    for (const { id, response, failure } of batch.answers) {
      const waiting = this.#waiting.get(id);
      // Cancelled meanwhile.
      if (!waiting) continue;
      this.#waiting.delete(id);
      if (failure === '') waiting.reply(response);
      else waiting.fail(decodeFailure(failure));
    }
  }

  #lost(why: string, refused = false): void {
    if (this.#gone) return;
    this.#gone = true;
    this.#onGone(refused);
    this.#sender.clear();
    this.#stream.cancel();
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const one of waiting) {
      if (refused) one.refused();
      else one.lost(why);
    }
  }
}
