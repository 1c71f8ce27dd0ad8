/**
 * A model of what a collection must hold, for tests with crashes: it knows each key's last acknowledged value and every value whose write has no
 * answer yet ("may have happened"). A key whose write ended unknown is retired: a late write could still land on it.
 */

/** Version of a key's row; 0: no row. */
export type Version = number;

type VersionTest = (version: Version) => boolean;

interface KeyState {
  /** Values that a read now may show. */
  possible: Set<Version>;
  retired: boolean;
}

/** What a snapshot may show of each key: one of these versions. */
export type Expectation = ReadonlyMap<number, ReadonlySet<Version>>;

export class Model {
  readonly #keys = new Map<number, KeyState>();
  readonly #watchers = new Set<Map<number, Set<Version>>>();
  /** Versions that may be dropped by now with what they lie in, and those that certainly are. */
  readonly #losing: VersionTest[] = [];
  readonly #lost: VersionTest[] = [];

  /** A key that may be written, of `total` keys from `from` on; undefined when all are retired. */
  pick(random: () => number, total: number, from = 0): number | undefined {
    for (let tries = 0; tries < 50; tries++) {
      const key = from + Math.floor(random() * total);
      if (!this.#state(key).retired) return key;
    }
    return undefined;
  }

  #state(key: number): KeyState {
    let state = this.#keys.get(key);
    if (!state) {
      state = { possible: new Set([0]), retired: false };
      this.#keys.set(key, state);
    }
    return state;
  }

  /** Whether the key certainly has no row now. */
  isAbsent(key: number): boolean {
    const { possible, retired } = this.#state(key);
    return !retired && possible.size === 1 && possible.has(0);
  }

  /** A write of these keys is about to be sent. */
  sent(writes: ReadonlyMap<number, Version>): void {
    for (const [key, version] of writes) {
      this.#state(key).possible.add(version);
      for (const watcher of this.#watchers) this.#watched(watcher, key).add(version);
    }
  }

  acknowledged(writes: ReadonlyMap<number, Version>): void {
    for (const [key, version] of writes) {
      const possible = new Set(this.#lost.some((test) => test(version)) ? [0] : [version]);
      if (this.#losing.some((test) => test(version))) possible.add(0);
      this.#state(key).possible = possible;
    }
  }

  /** The drop of what holds these versions (a partition) is about to be sent; nothing more is written there. */
  losing(versions: VersionTest): void {
    this.#losing.push(versions);
    const loosen = (possible: Set<Version>): void => {
      if ([...possible].some(versions)) possible.add(0);
    };
    for (const { possible } of this.#keys.values()) loosen(possible);
    for (const watcher of this.#watchers) {
      for (const key of this.#keys.keys()) loosen(this.#watched(watcher, key));
    }
  }

  /** That drop was acknowledged. */
  lost(versions: VersionTest): void {
    this.#lost.push(versions);
    for (const state of this.#keys.values()) {
      const kept = [...state.possible].filter((version) => !versions(version));
      if (kept.length < state.possible.size) state.possible = new Set([0, ...kept]);
    }
  }

  /** Every key that may have a row, with no row: what a truncation of the whole collection writes. */
  emptied(): ReadonlyMap<number, Version> {
    return new Map([...this.#keys].filter(([, { possible }]) => [...possible].some((version) => version !== 0)).map(([key]) => [key, 0]));
  }

  /** No answer, or a failure: it may have happened, or may yet. */
  unknown(writes: ReadonlyMap<number, Version>): void {
    for (const key of writes.keys()) this.#state(key).retired = true;
  }

  #watched(watcher: Map<number, Set<Version>>, key: number): Set<Version> {
    let set = watcher.get(key);
    if (!set) {
      set = new Set(this.#state(key).possible);
      watcher.set(key, set);
    }
    return set;
  }

  /** Starts to watch for a snapshot: call the result when the snapshot was answered, for what it may show. */
  watch(): () => Expectation {
    const watcher = new Map<number, Set<Version>>();
    for (const [key, state] of this.#keys) watcher.set(key, new Set(state.possible));
    this.#watchers.add(watcher);
    return () => {
      this.#watchers.delete(watcher);
      return watcher;
    };
  }

  now(): Expectation {
    return new Map([...this.#keys].map(([key, state]) => [key, new Set(state.possible)]));
  }

  get retired(): number {
    return [...this.#keys.values()].filter((state) => state.retired).length;
  }
}

/** What is expected of those rows alone that `passes` lets through: a filter, or chosen partitions. */
export function narrowed(expected: Expectation, passes: (key: number, version: Version) => boolean): Expectation {
  return new Map(
    [...expected].map(([key, versions]) => [
      key,
      new Set([...versions].map((version) => (version !== 0 && passes(key, version) ? version : 0))),
    ]),
  );
}

/** Differences between rows as read and what may be there; empty when all is right. */
export function differences(rows: readonly { readonly key: number; readonly version: Version }[], expected: Expectation): string[] {
  const found: string[] = [];
  const seen = new Map<number, Version>();
  for (const { key, version } of rows) {
    if (seen.has(key)) found.push(`key ${key} came twice (versions ${seen.get(key)} and ${version})`);
    seen.set(key, version);
    if (!expected.has(key)) found.push(`key ${key} (version ${version}) was never written`);
  }
  for (const [key, versions] of expected) {
    const version = seen.get(key) ?? 0;
    if (!versions.has(version))
      found.push(`key ${key}: ${version === 0 ? 'no row' : `version ${version}`}, may be ${[...versions].join(' or ')}`);
  }
  return found;
}
