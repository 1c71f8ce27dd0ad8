import { asCairnError, CairnError } from '@cairn/base';
import { Status } from '@cairn/proto/milvus/common';

/** Status of success; shared, never changed. */
export const OK: Status = Object.freeze(Status.create());

/**
 * The one place where an error becomes what Milvus SDKs read: always gRPC OK, with the new number (`code`) for those who look there and the
 * deprecated enum (`errorCode`) for those who look only at that.
 */
export function toStatus(thrown: unknown): Status {
  const error = asCairnError(thrown);
  const inputError = error.code === 1100 || error.code === 1101 || error.code === 1102;
  const reason = error.code === 1100 ? withKind(error.message) : error.message;
  return {
    // The generated enum has every number that ErrorCodes uses.
    errorCode: error.legacy as Status['errorCode'],
    code: error.code,
    reason,
    retriable: error.retriable,
    detail: reason,
    extraInfo: inputError ? { is_input_error: 'true', ...error.extraInfo } : { ...error.extraInfo },
  };
}

/** Milvus ends all messages of this code so, and applications look for it. */
const withKind = (message: string): string => (message.includes('invalid parameter') ? message : `${message}: invalid parameter`);

/** What every RPC that is not built answers. */
export function notSupported(name: string): CairnError {
  return new CairnError('NotSupported', `not supported: ${name}`);
}
