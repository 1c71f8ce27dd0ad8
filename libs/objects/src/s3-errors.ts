import { CairnError } from '@cairn/base';

/** What S3 servers say, told apart by status and name; servers differ in the names, so the status counts first. */

function statusOf(error: unknown): number {
  if (!(error instanceof Error) || !('$metadata' in error)) return 0;
  const metadata = error.$metadata;
  if (typeof metadata !== 'object' || metadata === null || !('httpStatusCode' in metadata)) return 0;
  return typeof metadata.httpStatusCode === 'number' ? metadata.httpStatusCode : 0;
}

function nameOf(error: unknown): string {
  return error instanceof Error ? error.name : '';
}

export function isMissing(error: unknown): boolean {
  return statusOf(error) === 404;
}

export function isNoBucket(error: unknown): boolean {
  return nameOf(error) === 'NoSuchBucket';
}

export function isPrecondition(error: unknown): boolean {
  return statusOf(error) === 412;
}

/** The bucket exists, made by us or beside us. */
export function isConflict(error: unknown): boolean {
  return nameOf(error) === 'BucketAlreadyOwnedByYou' || nameOf(error) === 'BucketAlreadyExists';
}

/** Server trouble, cut connections, conflicts of conditional writes (409) and a bucket that is being made: worth another try. Refusals are not. */
export function s3Failure(error: unknown, what: string, uri: string): CairnError {
  if (error instanceof CairnError) return error;
  const status = statusOf(error);
  const words = `cannot ${what} in ${uri}: status ${status}, ${nameOf(error)} ${error instanceof Error ? error.message : String(error)}`;
  const temporary = status === 0 || status >= 500 || status === 408 || status === 409 || status === 429 || isNoBucket(error);
  return new CairnError(temporary ? 'StoreUnavailable' : 'Internal', words, { cause: error });
}
