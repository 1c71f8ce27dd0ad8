import { totalmem } from 'node:os';

/** Memory that this process may have, bytes: the machine's, or what its container is held to. */
export function ownMemory(): number {
  const held = process.constrainedMemory();
  return held > 0 ? Math.min(held, totalmem()) : totalmem();
}
