/** Drills of snapshots while all else goes on: what a certificate says is compared with the model, and none says that a restore was not exact. */
import { DrillState } from '@cairn/proto/cairn/meta';
import { verifyCertificate } from '@cairn/segment';
import type { ClientCollection, TakenSnapshot } from './collection.ts';
import type { WorkParts } from './work-parts.ts';

/** How long one is followed while things fail, virtual ms; then it is left for the end. */
const PATIENCE_MS = 10_000;
/** Longest time of a drill once nothing fails any more, virtual ms. */
const LIMIT_MS = 60_000;
const POLL_MS = 300;
const ALIAS_CHANCE = 0.5;
const DAMAGED = /is not the snapshot|rows were counted after/;

interface Drill {
  readonly id: number;
  readonly snapshot: TakenSnapshot;
}

export class DrillWork {
  readonly #parts: WorkParts;
  /** Those whose end is not known. */
  readonly #open: Drill[] = [];

  constructor(parts: WorkParts) {
    this.#parts = parts;
  }

  async drill(collection: ClientCollection): Promise<void> {
    const parts = this.#parts;
    const snapshot = parts.pick(collection.there());
    if (!snapshot) return;
    snapshot.holds++;
    const address = collection.address(parts.coin(ALIAS_CHANCE));
    const outcome = await parts.client.startDrill(address.name, snapshot.name);
    parts.count('drill', outcome);
    if (outcome.kind === 'refused' && snapshot.state === 'there' && !address.excused())
      parts.problem(`a drill of snapshot ${snapshot.name} was refused: ${outcome.reason}`);
    if (outcome.kind === 'done') {
      const drill = { id: outcome.value.id, snapshot };
      if ((await this.#follow(drill, PATIENCE_MS)) === undefined) this.#open.push(drill);
    }
    snapshot.holds--;
  }

  /** When nothing fails any more: one that begins now completes. */
  async verify(collection: ClientCollection, snapshot: TakenSnapshot): Promise<void> {
    const parts = this.#parts;
    const outcome = await parts.client.startDrill(collection.name, snapshot.name);
    parts.count('drill at the end', outcome);
    if (outcome.kind !== 'done') {
      parts.problem(`no drill of snapshot ${snapshot.name} of ${collection.name} begins: ${outcome.reason}`);
      return;
    }
    const ended = await this.#follow({ id: outcome.value.id, snapshot }, LIMIT_MS);
    if (ended !== '')
      parts.problem(`the drill of snapshot ${snapshot.name} of ${collection.name} at the end: ${ended ?? 'it does not end'}`);
  }

  /** When nothing fails any more: all that began come to an end. */
  async settle(): Promise<void> {
    for (const drill of this.#open.splice(0))
      if ((await this.#follow(drill, LIMIT_MS)) === undefined)
        this.#parts.problem(`drill ${drill.id} of snapshot ${drill.snapshot.name} does not end`);
  }

  /** Why it failed, '' when it completed; undefined: it is not over, or nobody says. */
  async #follow({ id, snapshot }: Drill, patienceMs: number): Promise<string | undefined> {
    const parts = this.#parts;
    const { outside, simulation } = parts.world;
    const until = simulation.nowMs + patienceMs;
    while (simulation.nowMs < until) {
      await outside.sleep(POLL_MS);
      const outcome = await parts.client.getDrill(id);
      if (outcome.kind !== 'done' || outcome.value.state === DrillState.DRILL_RUNNING) continue;
      const { state, reason, certificate } = outcome.value;
      parts.tally(`drill ended ${state === DrillState.DRILL_COMPLETED ? 'completed' : 'failed'}`, `: ${reason}`);
      if (state === DrillState.DRILL_COMPLETED) this.#compare(snapshot, certificate);
      else if (DAMAGED.test(reason)) parts.problem(`drill ${id} of snapshot ${snapshot.name}: ${reason}`);
      return state === DrillState.DRILL_COMPLETED ? '' : reason || 'no reason';
    }
    return undefined;
  }

  #compare(snapshot: TakenSnapshot, certificate: string): void {
    const { visible_rows: rows } = verifyCertificate(certificate).body.content;
    const versions = [...snapshot.expected().values()];
    const least = versions.filter((of) => !of.has(0)).length;
    const most = versions.filter((of) => [...of].some((version) => version !== 0)).length;
    if (rows < least || rows > most)
      this.#parts.problem(`the certificate of snapshot ${snapshot.name} says ${rows} rows, it has ${least} to ${most}`);
  }
}
