import { CairnError } from '@cairn/base';
import { keys } from '@cairn/catalog';
import { ChannelRecord } from '@cairn/proto/cairn/meta';
import type { ProcessParts } from './process-parts.ts';

export type Need = 'coordinator' | 'channels';

/**
 * What a process needs before it can serve, as named checks: its stores always; for a proxy also a leading coordinator, and an owner for every
 * channel. A check throws with words when it fails.
 */
export class Readiness {
  readonly #parts: ProcessParts;
  readonly #needs = new Set<Need>();
  #started = false;

  constructor(parts: ProcessParts) {
    this.#parts = parts;
  }

  needs(...needs: Need[]): void {
    for (const need of needs) this.#needs.add(need);
  }

  readonly checks: Readonly<Record<string, () => Promise<void>>> = {
    started: async () => {
      if (!this.#started) throw new CairnError('ServiceNotReady', 'still starting');
    },
    metadata: () => this.#parts.meta.ping(),
    coordinator: async () => {
      if (this.#needs.has('coordinator') && !(await this.#parts.meta.get(keys.leader)))
        throw new CairnError('ServiceNotReady', 'no coordinator leads');
    },
    channels: async () => {
      if (!this.#needs.has('channels')) return;
      const { entries } = await this.#parts.meta.range({ prefix: keys.channels });
      if (entries.length === 0) throw new CairnError('ServiceNotReady', 'there are no channels yet');
      const orphans = entries.map((entry) => ChannelRecord.decode(entry.value)).filter((record) => record.nodeId === '');
      if (orphans.length > 0)
        throw new CairnError('ServiceNotReady', `channels without an owner: ${orphans.map((record) => record.channel).join(', ')}`);
    },
  };

  /** Everything of the process has started. */
  started(): void {
    this.#started = true;
  }
}
