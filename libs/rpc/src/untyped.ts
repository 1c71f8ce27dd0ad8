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
