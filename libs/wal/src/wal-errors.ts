import { CairnError } from '@cairn/base';

/** An append's expectation did not hold: another owner wrote, or an earlier try of the same record succeeded. Only reading tells which. */
export class WrongTailError extends CairnError {
  constructor(channel: string, expectedLast: number, cause?: unknown) {
    super('ChannelNotAvailable', `channel ${channel}: its last sequence is not ${expectedLast}, as the append expected`, { cause });
  }
}

/** Records that the reader asked for are gone: it must reload from segments and delta logs, never skip. */
export class TrimmedError extends CairnError {
  constructor(channel: string, from: number, first: number) {
    super('ChannelNotAvailable', `channel ${channel}: records from ${from} on were asked for, but it begins at ${first}`);
  }
}

/**
 * This owner's days on the channel are over: a higher epoch stands in the log. Entries that fail with it were not seen before the new fence;
 * after a failed read of the log their outcome may be unknown, so a caller answers "may have happened, repeat under the same request id".
 */
export class DeposedError extends CairnError {
  constructor(channel: string, epoch: number, reason: string) {
    super('ChannelNotAvailable', `channel ${channel}: the owner of epoch ${epoch} is deposed: ${reason}`);
  }
}

export function storeUnavailable(channel: string, what: string, cause?: unknown): CairnError {
  const why = cause instanceof Error ? `: ${cause.message}` : '';
  return new CairnError('StoreUnavailable', `write-ahead log: ${what} of channel ${channel} has no known outcome${why}`, { cause });
}

export function channelMissing(channel: string): CairnError {
  return new CairnError('ChannelNotFound', `write-ahead log: channel ${channel} does not exist`);
}

const channelPattern = /^[A-Za-z0-9_-]{1,128}$/;
const subjectPattern = /^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$/;
const MAX_SUBJECT_BYTES = 255;

/** A channel's name becomes a stream's name and a key: letters, digits, `_` and `-`, at most 128. */
export function checkChannel(channel: string): void {
  if (!channelPattern.test(channel))
    throw new CairnError('InvalidParameter', `channel name '${channel}': 1 to 128 letters, digits, '_' or '-'`);
}

export function checkSubject(subject: string): void {
  if (subject.length > MAX_SUBJECT_BYTES || !subjectPattern.test(subject)) {
    throw new CairnError(
      'InvalidParameter',
      `subject '${subject}': tokens of letters, digits, '_' or '-' joined by '.', at most ${MAX_SUBJECT_BYTES} bytes`,
    );
  }
}

export function checkRecordSize(channel: string, bytes: number, maxRecordBytes: number): void {
  if (bytes > maxRecordBytes) {
    throw new CairnError(
      'ParameterTooLarge',
      `channel ${channel}: a record of ${bytes} bytes is above the limit wal.maxRecordBytes ${maxRecordBytes}`,
    );
  }
}
