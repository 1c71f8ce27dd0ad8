import { CairnError } from '@cairn/base';

/** What S3 servers say, told apart by status and code; servers differ in the codes, so the status counts first. */
export class S3Error extends Error {
  override readonly name = 'S3Error';
  /** Of the answer; 0 when there was none. */
  readonly status: number;
  /** S3's own (`NoSuchKey`), or the system's when the connection failed (`ECONNRESET`); may be empty. */
  readonly code: string;

  constructor(status: number, code: string, message: string, cause?: unknown) {
    super(message, { cause });
    this.status = status;
    this.code = code;
  }
}

function statusOf(error: unknown): number {
  return error instanceof S3Error ? error.status : 0;
}

function codeOf(error: unknown): string {
  return error instanceof S3Error ? error.code : '';
}

export function isMissing(error: unknown): boolean {
  return statusOf(error) === 404;
}

export function isNoBucket(error: unknown): boolean {
  return codeOf(error) === 'NoSuchBucket';
}

export function isPrecondition(error: unknown): boolean {
  return statusOf(error) === 412;
}

/** The range asked for starts behind the end. */
export function isBehindEnd(error: unknown): boolean {
  return statusOf(error) === 416;
}

/** The bucket exists, made by us or beside us. */
export function isConflict(error: unknown): boolean {
  return codeOf(error) === 'BucketAlreadyOwnedByYou' || codeOf(error) === 'BucketAlreadyExists';
}

/** The server's clock and ours are further apart than signatures allow. */
export function isSkewed(error: unknown): boolean {
  return codeOf(error) === 'RequestTimeTooSkewed';
}

/**
 * Server trouble, cut connections, conflicts of conditional writes (409), clocks apart (the next try is signed with the server's) and a bucket
 * that is being made: worth another try. Refusals are not.
 */
export function s3Failure(error: unknown, what: string, uri: string): CairnError {
  if (error instanceof CairnError) return error;
  const status = statusOf(error);
  const words = `cannot ${what} in ${uri}: status ${status}, ${codeOf(error)} ${error instanceof Error ? error.message : String(error)}`;
  const temporary =
    status === 0 || status >= 500 || status === 408 || status === 409 || status === 429 || isNoBucket(error) || isSkewed(error);
  return new CairnError(temporary ? 'StoreUnavailable' : 'Internal', words, { cause: error });
}
