import type { CallContext, CallOptions, Client, Handlers, ServiceDefinition } from './definition.ts';

/**
 * The generic types say what each method takes and gives; the machinery below them handles every method alike. This file is the one place
 * where the two meet.
 */
export type AnyHandler = (request: unknown, context: CallContext) => Promise<unknown> | AsyncIterable<unknown>;
export type AnyMethod = (request: unknown, options?: CallOptions) => Promise<unknown> | AsyncIterable<unknown>;

export function handlerOf<D extends ServiceDefinition, C>(handlers: Handlers<D, C>, method: string): AnyHandler | undefined {
  const table = handlers as unknown as Record<string, AnyHandler | undefined>;
  const handler = table[method];
  return handler?.bind(handlers);
}

/** A client object with one function per method that takes a single request. */
export function buildClient<D extends ServiceDefinition>(definition: D, build: (method: string) => AnyMethod): Client<D> {
  const methods = Object.entries(definition.methods).filter(([, method]) => !method.requestStream);
  return Object.fromEntries(methods.map(([name]) => [name, build(name)])) as unknown as Client<D>;
}

/**
 * The same bytes as a plain Uint8Array. Decoders hand out parts of what they are given, and a part of a Buffer is a Buffer, whose `slice()` is a view
 * and not the copy that code for typed arrays counts on (a misaligned vector stayed misaligned).
 */
export function plainBytes(bytes: Buffer): Uint8Array {
  return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** The same bytes as a Buffer. */
export function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
