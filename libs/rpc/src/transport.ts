import type { Client, ServiceDefinition } from './definition.ts';

/** How to reach services: over gRPC (`host:port`) or inside this process (`inproc:name`). */
export interface Transport {
  /** Cheap and cached by address; connecting happens at the first call. */
  client<D extends ServiceDefinition>(definition: D, address: string): Client<D>;
  close(): void;
}

/** Deadline of a call whose caller names none. */
export const DEFAULT_TIMEOUT_MS = 15_000;
