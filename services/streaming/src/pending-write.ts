import { CairnError, type Deferred, deferred } from '@cairn/base';
import type { WriteResponse } from '@cairn/proto/cairn/services';
import type { ChannelLog } from './channel-log.ts';
import type { KeyWatch, KeyWatches } from './key-watch.ts';
import type { LogWrite, RecordDrafts } from './log-write.ts';
import type { Stampable } from './stamper.ts';

/** What a write was made from was written anew before it got its stamp; nothing was appended. */
export class StaleRead extends Error {
  override readonly name = 'StaleRead';
}

/** Whom a write tells that it was stamped, and under which watch it was made. */
export interface StampNotice {
  readonly watches: KeyWatches;
  readonly own: KeyWatch | undefined;
}

/** A write between its arrival and its answer. */
export class PendingWrite implements Stampable {
  readonly bytes: number;
  readonly #log: ChannelLog;
  readonly #write: LogWrite;
  readonly #drafts: RecordDrafts;
  readonly #caller: AbortSignal;
  readonly #notice: StampNotice;
  #stamped = false;
  readonly #answer: Deferred<WriteResponse> = deferred<WriteResponse>();

  constructor(log: ChannelLog, write: LogWrite, drafts: RecordDrafts, caller: AbortSignal, notice: StampNotice) {
    this.#log = log;
    this.#write = write;
    this.#drafts = drafts;
    this.#caller = caller;
    this.#notice = notice;
    this.bytes = drafts.bytes;
    // Before the stamp a caller that goes leaves nothing behind; after it the write is in the log and its answer is kept for a repeat.
    const abandon = (): void => {
      if (!this.#stamped) this.fail(new CairnError('Timeout', `${write.vchannel}: the write's deadline passed or its caller has gone`));
    };
    if (caller.aborted) abandon();
    else caller.addEventListener('abort', abandon, { once: true });
  }

  /** Settles with the log's word once stamped, whether or not the caller still waits: until then a repeat must find this write. */
  get answer(): Promise<WriteResponse> {
    return this.#answer.promise;
  }

  get abandoned(): boolean {
    return this.#caller.aborted;
  }

  stamp(ts: number): void {
    const { watches, own } = this.#notice;
    if (own?.stale) {
      this.fail(new StaleRead());
      return;
    }
    this.#stamped = true;
    watches.note(this.#write, own);
    this.#log.append({ kind: 'write', ts, bytes: this.bytes, write: this.#write }, this.#drafts.entries(ts)).then(
      (sequence) => this.#answer.resolve({ ts, sequence }),
      (error: unknown) => this.#answer.reject(error),
    );
  }

  fail(error: unknown): void {
    this.#answer.reject(error);
  }
}
