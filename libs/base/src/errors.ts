/**
 * One error class for the whole house. It is created near the cause with names and values in the message, and turned into a wire Status in
 * one place (the proxy). Numbers are Milvus's public ones (pkg/util/merr); `legacy` is the deprecated enum that older SDKs read.
 */
export interface CodeInfo {
  readonly code: number;
  /** Value of the deprecated `common.ErrorCode` enum sent beside `code`. */
  readonly legacy: number;
  readonly retriable: boolean;
}

const info = (code: number, legacy = 1, retriable = false): CodeInfo => ({ code, legacy, retriable });

export const ErrorCodes = {
  ServiceNotReady: info(1, 56, true),
  Unavailable: info(2, 1, true),
  MemoryLimit: info(3, 52),
  TooManyRequests: info(4, 1, true),
  Internal: info(5),
  DiskLimit: info(7, 54),
  RateLimit: info(8, 49, true),
  ForceDeny: info(9, 48),
  NotSupported: info(10),
  TimeTickDelay: info(11, 55),
  ResourceInsufficient: info(12, 1, true),
  CollectionNotFound: info(100, 4),
  CollectionNotLoaded: info(101),
  CollectionLimit: info(102),
  CollectionNotFullyLoaded: info(103, 1, true),
  CollectionLoaded: info(104),
  IllegalSchema: info(105),
  /** A collection that is being restored. Not retriable here, though Milvus marks it so: SDKs would poll 75 times. */
  CollectionRestoring: info(106),
  PartitionNotFound: info(200, 15),
  PartitionNotLoaded: info(201),
  PartitionNotFullyLoaded: info(202, 1, true),
  ResourceGroupNotFound: info(300),
  ReplicaNotFound: info(400, 15),
  ReplicaNotAvailable: info(401, 46),
  ChannelNotFound: info(500, 15),
  ChannelNotAvailable: info(503, 46, true),
  SegmentNotFound: info(600, 47),
  IndexNotFound: info(700, 25),
  IndexNotSupported: info(701),
  IndexDuplicate: info(702),
  DatabaseNotFound: info(800),
  DatabaseLimit: info(801),
  InvalidDatabaseName: info(802),
  NodeNotFound: info(901),
  NodeNotMatch: info(904, 50),
  NodeNotAvailable: info(905, 46, true),
  ObjectNotFound: info(1000),
  ObjectDamaged: info(1001),
  StoreUnavailable: info(1002, 1, true),
  InvalidParameter: info(1100, 5),
  MissingParameter: info(1101),
  ParameterTooLarge: info(1102),
  NotAuthenticated: info(1400),
  AliasNotFound: info(1600),
  AliasCollectionConflict: info(1601),
  AliasExists: info(1602),
  FieldNotFound: info(1700),
  InvalidFieldName: info(1701),
  RestoreJobNotFound: info(2100),
  CompactionPlanNotFound: info(2300),
  SnapshotPinned: info(2601),
  OperationNotSupported: info(3000),
  Cancelled: info(10000),
  Timeout: info(10001, 1, true),
  /** Insert against a stale schema: SDKs describe again and retry once on the legacy number. */
  SchemaMismatch: info(109, 62),
  Unexpected: info(65535),
} as const;

export type CodeName = keyof typeof ErrorCodes;

const byNumber = new Map<number, CodeName>(Object.entries(ErrorCodes).map(([name, entry]) => [entry.code, name as CodeName]));

/** Name of a code number as it came over the wire; unknown numbers are `Unexpected`. */
export function codeNameOf(code: number): CodeName {
  return byNumber.get(code) ?? 'Unexpected';
}

export interface ErrorOptions {
  readonly cause?: unknown;
  /** Overrides the code's own legacy number (DescribeCollection of a missing database, for one). */
  readonly legacy?: number;
  readonly extraInfo?: Readonly<Record<string, string>>;
}

export class CairnError extends Error {
  override readonly name = 'CairnError';
  readonly codeName: CodeName;
  readonly legacy: number;
  readonly extraInfo: Readonly<Record<string, string>>;

  constructor(codeName: CodeName, message: string, options: ErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.codeName = codeName;
    this.legacy = options.legacy ?? ErrorCodes[codeName].legacy;
    this.extraInfo = options.extraInfo ?? {};
  }

  get code(): number {
    return ErrorCodes[this.codeName].code;
  }

  get retriable(): boolean {
    return ErrorCodes[this.codeName].retriable;
  }
}

/** Any thrown value as a CairnError; what is not ours becomes `Unexpected` with its own message. */
export function asCairnError(error: unknown): CairnError {
  if (error instanceof CairnError) return error;
  if (error instanceof Error && error.name === 'AbortError') return new CairnError('Cancelled', error.message, { cause: error });
  return new CairnError('Unexpected', error instanceof Error ? error.message : String(error), { cause: error });
}

export function isRetriable(error: unknown): boolean {
  return error instanceof CairnError && error.retriable;
}

/** True when `error` is a CairnError of one of these codes. */
export function hasCode(error: unknown, ...names: CodeName[]): error is CairnError {
  return error instanceof CairnError && names.includes(error.codeName);
}

/** Extra info of a StoreUnavailable whose store is full, with the store's name: trying again helps when its operator has made room. */
export const STORE_FULL = 'store_full';

/** Extra info of an error that ends its request: a repeat under the same request id gets the same answer, a new request may succeed. */
export const REQUEST_ENDED: Readonly<Record<string, string>> = { request_ended: 'true' };

export function endsRequest(error: CairnError): boolean {
  return error.extraInfo['request_ended'] === 'true';
}

/** States an invariant of our own code; a failure is a bug, not bad input. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new CairnError('Internal', `assertion failed: ${message}`);
}
