import { asCairnError, CairnError, type CodeName, ErrorCodes } from '@cairn/base';
import { Metadata, status } from '@grpc/grpc-js';

/** Trailer that carries an error of the house, as ASCII JSON. */
export const ERROR_TRAILER = 'cairn-error';
/** Longest message in a trailer, characters: HTTP/2 header lists are limited to 64 KiB, and \u escapes take six bytes a character. */
const MAX_MESSAGE_LENGTH = 4_000;

interface ErrorTrailer {
  readonly codeName: string;
  readonly message: string;
  readonly legacy: number;
  readonly extraInfo: Readonly<Record<string, string>>;
}

const escapeNonAscii = (json: string): string =>
  json.replace(/[^\x20-\x7e]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`);

function statusOf(error: CairnError): status {
  switch (error.codeName) {
    case 'Timeout':
      return status.DEADLINE_EXCEEDED;
    case 'Cancelled':
      return status.CANCELLED;
    case 'NotSupported':
      return status.UNIMPLEMENTED;
    case 'InvalidParameter':
    case 'MissingParameter':
      return status.INVALID_ARGUMENT;
    case 'ParameterTooLarge':
      return status.RESOURCE_EXHAUSTED;
    case 'NotAuthenticated':
      return status.UNAUTHENTICATED;
    default:
      return error.retriable ? status.UNAVAILABLE : status.UNKNOWN;
  }
}

/** What crosses the wire of an error, and the error that it is of. */
function trailerOf(thrown: unknown): { readonly error: CairnError; readonly trailer: ErrorTrailer } {
  const error = asCairnError(thrown);
  const message = error.message.slice(0, MAX_MESSAGE_LENGTH);
  return { error, trailer: { codeName: error.codeName, message, legacy: error.legacy, extraInfo: error.extraInfo } };
}

/** A thrown value as gRPC takes it: a status for strangers, the trailer for us. What is not a CairnError becomes `Unexpected`. */
export function toServiceError(thrown: unknown): { code: status; details: string; metadata: Metadata } {
  const { error, trailer } = trailerOf(thrown);
  const metadata = new Metadata();
  metadata.set(ERROR_TRAILER, escapeNonAscii(JSON.stringify(trailer)));
  return { code: statusOf(error), details: trailer.message.replace(/[^\x20-\x7e]/g, '?'), metadata };
}

/** A thrown value as an answer in a stream of calls carries it. */
export function encodeFailure(thrown: unknown): string {
  return JSON.stringify(trailerOf(thrown).trailer);
}

export function decodeFailure(text: string): CairnError {
  return parseTrailer(text) ?? new CairnError('Unexpected', 'the other side failed and said nothing that can be read');
}

function parseTrailer(text: string): CairnError | undefined {
  try {
    const trailer = JSON.parse(text) as ErrorTrailer;
    const codeName: CodeName = trailer.codeName in ErrorCodes ? (trailer.codeName as CodeName) : 'Unexpected';
    return new CairnError(codeName, String(trailer.message), { legacy: Number(trailer.legacy), extraInfo: trailer.extraInfo });
  } catch {
    return undefined;
  }
}

/** The server's own error when it sent one, else what the connection says. `what` names the call and address for messages. */
export function fromServiceError(error: { code: status; details: string; metadata?: Metadata }, what: string): CairnError {
  const trailer = error.metadata?.get(ERROR_TRAILER)[0];
  const told = trailer === undefined ? undefined : parseTrailer(trailer.toString());
  if (told) return told;
  const message = `${what}: ${error.details}`;
  switch (error.code) {
    case status.UNAVAILABLE:
      return new CairnError('Unavailable', message);
    case status.DEADLINE_EXCEEDED:
      return new CairnError('Timeout', message);
    case status.CANCELLED:
      return new CairnError('Cancelled', message);
    case status.UNIMPLEMENTED:
      return new CairnError('NotSupported', message);
    case status.INVALID_ARGUMENT:
      return new CairnError('InvalidParameter', message);
    case status.RESOURCE_EXHAUSTED:
      return new CairnError('ParameterTooLarge', message);
    default:
      return new CairnError('Unexpected', message);
  }
}
