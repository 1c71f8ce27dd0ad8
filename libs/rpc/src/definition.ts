/** The shape of a service as the generator writes it (ts-proto's generic definitions), reduced to what a server and a client need. */
export interface MessageCodec<T> {
  encode(message: T): { finish(): Uint8Array };
  decode(input: Uint8Array): T;
}

// Parameters are contravariant, so only `never` lets every generated codec fit.
interface AnyCodec {
  encode(message: never): { finish(): Uint8Array };
  decode(input: Uint8Array): unknown;
}

export interface MethodDefinition {
  /** As in the .proto file: `CreateSnapshot`. */
  readonly name: string;
  readonly requestType: AnyCodec;
  readonly requestStream: boolean;
  readonly responseType: AnyCodec;
  readonly responseStream: boolean;
}

export interface ServiceDefinition {
  /** Package and service: `cairn.internal.v1.DataCoord`. */
  readonly fullName: string;
  readonly methods: Readonly<Record<string, MethodDefinition>>;
}

type Methods<D extends ServiceDefinition> = D['methods'];
/** Methods that take one request; streams of requests are nobody's here. */
export type MethodName<D extends ServiceDefinition> = {
  [K in keyof Methods<D>]: Methods<D>[K]['requestStream'] extends true ? never : K;
}[keyof Methods<D>] &
  string;

export type RequestOf<M extends MethodDefinition> = ReturnType<M['requestType']['decode']>;
export type ResponseOf<M extends MethodDefinition> = ReturnType<M['responseType']['decode']>;

export interface CallOptions {
  readonly signal?: AbortSignal;
  /** Deadline of the call, ms from now; default is the transport's `timeoutMs`. `Infinity`: none. */
  readonly timeoutMs?: number;
  /** Lower-case keys, printable ASCII values. */
  readonly metadata?: Readonly<Record<string, string>>;
}

/** One function per method. Rejects with a CairnError: the server's own, or Unavailable, Timeout, Cancelled. */
export type Client<D extends ServiceDefinition> = {
  readonly [K in MethodName<D>]: (
    request: RequestOf<Methods<D>[K]>,
    options?: CallOptions,
  ) => Methods<D>[K]['responseStream'] extends true ? AsyncIterable<ResponseOf<Methods<D>[K]>> : Promise<ResponseOf<Methods<D>[K]>>;
};

/** What a handler knows of its call. */
export interface CallContext {
  /** Aborts when the caller has gone or the deadline has passed. */
  readonly signal: AbortSignal;
  readonly metadata: ReadonlyMap<string, string>;
  /** ms until the caller's deadline, never negative; `Infinity` when it set none. */
  remaining(): number;
}

/** (De)serialisers of one method that replace the generated ones: hand-made, straight on the bytes. */
export interface MethodCodec<Request, Response> {
  readonly decodeRequest?: (bytes: Buffer) => Request;
  readonly encodeResponse?: (response: Response) => Uint8Array;
}

type AnyMethodCodec = { readonly decodeRequest?: (bytes: Buffer) => unknown; readonly encodeResponse?: (response: never) => Uint8Array };
export type Codecs<D extends ServiceDefinition> = { readonly [K in MethodName<D>]?: AnyMethodCodec };

type HandledRequest<M extends MethodDefinition, C> = C extends { decodeRequest: (bytes: Buffer) => infer R } ? R : RequestOf<M>;
type HandledResponse<M extends MethodDefinition, C> = C extends { encodeResponse: (response: infer R) => Uint8Array } ? R : ResponseOf<M>;
type CodecOf<C, K> = K extends keyof C ? C[K] : undefined;

/** What serves a definition: one function per method; with codecs, on what those give and take. A thrown CairnError reaches the caller as it is. */
export type Handlers<D extends ServiceDefinition, C = Record<never, never>> = {
  readonly [K in MethodName<D>]: (
    request: HandledRequest<Methods<D>[K], CodecOf<C, K>>,
    context: CallContext,
  ) => Methods<D>[K]['responseStream'] extends true
    ? AsyncIterable<HandledResponse<Methods<D>[K], CodecOf<C, K>>>
    : Promise<HandledResponse<Methods<D>[K], CodecOf<C, K>>>;
};

/** Services between our own processes, whose calls carry protocol versions. */
export const isInner = (definition: ServiceDefinition): boolean => definition.fullName.startsWith('cairn.internal.');

/** Path of a method on the wire. */
export function methodPath(definition: ServiceDefinition, method: MethodDefinition): string {
  return `/${definition.fullName}/${method.name}`;
}
