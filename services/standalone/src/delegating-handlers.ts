import { CairnError } from '@cairn/base';
import type { CallContext, Handlers, ServiceDefinition } from '@cairn/rpc';

type AnyHandlers = Record<string, ((request: unknown, context: CallContext) => unknown) | undefined>;

/**
 * Handlers that hand each call to whatever serves now: a server listens before its service exists (the service needs to know its address), and a
 * service that lost its lease is replaced by a new one behind the same port. While there is none, callers get Unavailable and try again.
 */
export function delegate<D extends ServiceDefinition>(definition: D, name: string, current: () => Handlers<D> | undefined): Handlers<D> {
  const table: AnyHandlers = {};
  for (const method of Object.keys(definition.methods)) {
    table[method] = (request, context) => {
      const handler = (current() as unknown as AnyHandlers | undefined)?.[method];
      if (!handler) throw new CairnError('Unavailable', `${name} is not ready to serve ${method}`);
      return handler(request, context);
    };
  }
  return table as unknown as Handlers<D>;
}
