import { asCairnError, CairnError, hasCode, type Logger, type Runtime, retry } from '@cairn/base';
import { ControlRecord } from '@cairn/proto/cairn/wal';
import { type ChannelWriter, openChannelWriter, type WalStore } from '@cairn/wal';
import type { ChangePreparer } from './change-preparer.ts';
import type { Change } from './changes/table.ts';
import type { Applied, ControlApplier } from './control-applier.ts';
import type { DataCoordSettings } from './settings.ts';

/** The WAL channel that carries every change of the catalog. */
export const CONTROL_CHANNEL = 'control';
const SUBJECT = 'change';
/** The channel is trimmed each time so many messages were applied since. */
const TRIM_EVERY = 256;

export interface ControlChannelOptions {
  readonly wal: WalStore;
  readonly epoch: number;
  readonly applier: ControlApplier;
  readonly preparer: ChangePreparer;
  readonly runtime: Runtime;
  readonly logger: Logger;
  readonly settings: DataCoordSettings;
  /** Aborts when the term ends. */
  readonly stop: AbortSignal;
  /** Called when nothing more can be appended or applied in this term. */
  readonly failed: (error: unknown) => void;
}

/**
 * The one road of catalog changes: prepare (ids, courtesy validation) → append → apply in order → answer. Serves only after its own fence, and
 * everything before it, is applied.
 */
export class ControlChannel {
  readonly #options: ControlChannelOptions;
  readonly #inFlight = new Map<string, Promise<Applied>>();
  #writer: ChannelWriter | undefined;
  #tail: Promise<unknown> = Promise.resolve();
  #pending = 0;
  #trimmedAt = 0;

  constructor(options: ControlChannelOptions) {
    this.#options = options;
  }

  /** Fences the channel with this leader's epoch and applies what earlier leaders left. */
  async start(): Promise<void> {
    const { wal, epoch, applier, runtime, logger, stop } = this.#options;
    const patience = {
      attempts: Number.POSITIVE_INFINITY,
      firstDelayMs: 50,
      maxDelayMs: 1_000,
      retriable: (error: unknown) => hasCode(error, 'StoreUnavailable'),
      onRetry: (error: unknown) => logger.warn({ error }, 'waiting for the WAL of the control channel'),
    };
    const writer = await retry(
      runtime,
      patience,
      async () => {
        await wal.ensureChannel(CONTROL_CHANNEL);
        return openChannelWriter(wal, CONTROL_CHANNEL, epoch, { runtime, logger });
      },
      stop,
    );
    this.#writer = writer;
    stop.addEventListener('abort', () => writer.close(), { once: true });
    writer.deposed.addEventListener(
      'abort',
      () => this.#options.failed(new CairnError('ServiceNotReady', 'the control channel was taken over')),
      { once: true },
    );
    await retry(runtime, patience, () => this.#replay(writer), stop);
    await applier.apply(writer.fenceSequence, undefined);
    this.#trimmedAt = applier.appliedSequence;
  }

  async #replay(writer: ChannelWriter): Promise<void> {
    const { applier, logger } = this.#options;
    for await (const page of writer.replay(applier.appliedSequence + 1)) {
      for (const record of page) {
        if (record.kind !== 'data' || record.sequence <= applier.appliedSequence) continue;
        const message = this.#read(record.sequence, record.payload);
        try {
          await applier.apply(record.sequence, message);
          logger.info(
            { sequence: record.sequence, change: message?.change?.$case },
            'applied a change that an earlier leader had only written',
          );
        } catch (error) {
          // The change's own error is recorded as its answer; only what kept it from being applied stops the replay.
          if (applier.appliedSequence < record.sequence) throw error;
        }
      }
    }
  }

  /** undefined: bytes that are no message. Nobody waits for their answer; they are stepped over, or no leader could ever begin. */
  #read(sequence: number, payload: Uint8Array): ControlRecord | undefined {
    try {
      return ControlRecord.decode(payload);
    } catch (error) {
      this.#options.logger.error(
        { error, sequence, bytes: payload.length },
        'a record of the control channel cannot be read; it changes nothing',
      );
      return undefined;
    }
  }

  /**
   * Carries out a change once: the same request id gives the same answer, whoever leads. Throws the change's own error; ServiceNotReady when
   * this leader is deposed meanwhile (the change may or may not happen: ask again under the same id).
   */
  submit(requestId: string, change: Change): Promise<Applied> {
    const { applier, settings } = this.#options;
    if (requestId === '') return Promise.reject(new CairnError('InvalidParameter', 'a catalog change needs a request id'));
    const running = this.#inFlight.get(requestId);
    if (running) return running;
    if (this.#pending >= settings.maxPendingChanges) {
      return Promise.reject(
        new CairnError('TooManyRequests', `control channel: ${settings.maxPendingChanges} changes are waiting already`),
      );
    }
    this.#pending++;
    const outcome = (async () => applier.answerOf(requestId) ?? (await this.#carryOut(requestId, change)))().finally(() => {
      this.#pending--;
      this.#inFlight.delete(requestId);
    });
    this.#inFlight.set(requestId, outcome);
    return outcome;
  }

  async #carryOut(requestId: string, change: Change): Promise<Applied> {
    const { applier, preparer } = this.#options;
    const prepared = await preparer.prepare(change);
    const record: ControlRecord = { requestId, change: prepared };
    const writer = this.#writer;
    if (!writer) throw new CairnError('ServiceNotReady', 'the control channel is not open yet');
    const payload = ControlRecord.encode(record).finish();
    if (payload.length > writer.maxPayloadBytes) {
      throw new CairnError(
        'ParameterTooLarge',
        `${change.$case}: message of ${payload.length} bytes is above the limit of ${writer.maxPayloadBytes} bytes`,
      );
    }
    const appended = writer.append([{ subject: SUBJECT, payload }]);
    // Looked at when its turn comes; until then a refusal has no other handler.
    appended.catch(() => undefined);
    const applied = this.#tail.then(async () => applier.apply(await this.#sequenceOf(appended), record));
    this.#tail = applied.then(
      () => this.#trim(),
      (error: unknown) => this.#afterFailure(error, requestId),
    );
    return applied;
  }

  async #sequenceOf(appended: Promise<number>): Promise<number> {
    try {
      return await appended;
    } catch (error) {
      const notReady = new CairnError('ServiceNotReady', `the control channel took no more changes: ${asCairnError(error).message}`, {
        cause: error,
      });
      this.#options.failed(notReady);
      throw notReady;
    }
  }

  /** A change whose answer is recorded failed by itself; any other failure leaves a hole in the order, so this leader must go. */
  #afterFailure(error: unknown, requestId: string): void {
    try {
      if (this.#options.applier.answerOf(requestId)) return;
    } catch {
      return; // The recorded error: it has been answered.
    }
    this.#options.failed(error);
  }

  #trim(): void {
    const { wal, applier, logger } = this.#options;
    if (applier.appliedSequence - this.#trimmedAt < TRIM_EVERY) return;
    this.#trimmedAt = applier.appliedSequence;
    wal
      .trim(CONTROL_CHANNEL, applier.appliedSequence)
      .catch((error: unknown) => logger.warn({ error }, 'the control channel could not be trimmed'));
  }
}
