/**
 * Races that must have one outcome, as stories over a client: told in simulation under many seeds, and on a real cluster. Each takes collections of
 * its own, so that many can be told in one house.
 */
import { differences, type Expectation, Model, type Version } from './model.ts';
import type { Outcome, Row } from './outcome.ts';

export interface RaceClient {
  createCollection(name: string, shards: number): Promise<Outcome<unknown>>;
  /** Index and load. */
  prepare(name: string): Promise<Outcome<unknown>>;
  load(name: string): Promise<Outcome<unknown>>;
  dropCollection(name: string): Promise<Outcome<unknown>>;
  hasCollection(name: string): Promise<Outcome<{ readonly value: boolean }>>;
  createPartition(collection: string, partition: string): Promise<Outcome<unknown>>;
  /** Releases it first. */
  dropPartition(collection: string, partition: string): Promise<Outcome<unknown>>;
  rename(from: string, to: string): Promise<Outcome<unknown>>;
  upsert(collection: string, rows: readonly Row[], partition?: string): Promise<Outcome<unknown>>;
  delete(collection: string, keys: readonly number[]): Promise<Outcome<unknown>>;
  flush(collection: string): Promise<Outcome<unknown>>;
  /** Begins it, of all segments. */
  compact(collection: string): Promise<Outcome<unknown>>;
  createSnapshot(collection: string, name: string, tries?: number): Promise<Outcome<unknown>>;
  dropSnapshot(collection: string, name: string, tries?: number): Promise<Outcome<unknown>>;
  listSnapshots(collection: string): Promise<Outcome<{ readonly snapshots: readonly string[] }>>;
  pin(collection: string, name: string, ttlSeconds: number): Promise<Outcome<{ readonly pinId: bigint }>>;
  unpin(pinId: bigint): Promise<Outcome<unknown>>;
  restore(collection: string, name: string, target: string): Promise<Outcome<{ readonly jobId: bigint }>>;
  restored(jobId: bigint, limitMs: number): Promise<{ readonly state: 'completed' | 'failed' | 'unknown'; readonly reason: string }>;
  rows(collection: string, tries?: number): Promise<Outcome<Row[]>>;
  /** One round of garbage collection, now. */
  collectGarbage(): Promise<Outcome<unknown>>;
}

/** Where a race is run. */
export interface RaceHouse {
  readonly client: RaceClient;
  sleep(ms: number): Promise<void>;
  random(): number;
  /** Process number `which` of a role believes that it goes on, while nobody hears of it for so long: longer than its lease. */
  freeze(role: 'datacoord' | 'streaming', which: number): Promise<void>;
  /** It dies at once, and comes back. */
  kill(role: 'datacoord' | 'streaming', which: number): Promise<void>;
}

const EXISTS = 1100;
const NOT_FOUND = 100;
const RESTORING = 106;
const PINNED = 2601;
const ROWS = 20;
const LIMIT_MS = 60_000;
/** Calls of a race begin within this time of each other. */
const SPREAD_MS = 15;
/** Tries of what must work once trouble is over. */
const TRIES = 20;

class Race {
  readonly house: RaceHouse;
  readonly client: RaceClient;
  readonly problems: string[] = [];
  /** Which of the outcomes that may be came to be. */
  readonly saw = new Set<string>();
  readonly name: string;
  readonly model = new Model();
  #version = 0;
  #targets = 0;

  constructor(house: RaceHouse, name: string) {
    this.house = house;
    this.client = house.client;
    this.name = name;
  }

  must<T>(what: string, outcome: Outcome<T>): T | undefined {
    if (outcome.kind === 'done') return outcome.value;
    this.problems.push(`${this.name}: ${what} was ${outcome.kind}: ${outcome.reason}`);
    return undefined;
  }

  check(holds: boolean, what: string): void {
    if (!holds) this.problems.push(`${this.name}: ${what}`);
  }

  /** Waits a moment of its own, then calls. */
  async soon<T>(call: () => Promise<T>, spreadMs = SPREAD_MS): Promise<T> {
    await this.house.sleep(this.house.random() * spreadMs);
    return call();
  }

  async setUp(): Promise<void> {
    this.must('create collection', await this.client.createCollection(this.name, 2));
    this.must('prepare', await this.client.prepare(this.name));
    await this.write(Array.from({ length: ROWS }, (_, key) => key));
    this.must('flush', await this.client.flush(this.name));
    await this.write([0, 3, 6, 9]);
  }

  async write(keys: readonly number[], partition?: string): Promise<void> {
    const rows = keys.map((key) => ({ key, version: ++this.#version }));
    const writes = new Map<number, Version>(rows.map(({ key, version }) => [key, version]));
    this.model.sent(writes);
    const outcome = await this.client.upsert(this.name, rows, partition);
    if (outcome.kind === 'done') this.model.acknowledged(writes);
    else this.model.unknown(writes);
  }

  /** Writes into keys of its own until told to end. */
  writing(): { readonly stop: () => Promise<void> } {
    let stopped = false;
    const work = (async () => {
      for (let key = 1_000; !stopped; key = 1_000 + ((key + 7) % 40)) {
        if (this.model.pick(() => 0, 1, key) !== undefined) await this.write([key, key + 1]);
        await this.house.sleep(5);
      }
    })();
    return {
      stop: () => {
        stopped = true;
        return work;
      },
    };
  }

  async listed(snapshot: string, collection = this.name): Promise<boolean> {
    return this.must('list', await this.client.listSnapshots(collection))?.snapshots.includes(snapshot) ?? false;
  }

  /** Restores it and compares. */
  async holds(snapshot: string, expected: Expectation, collection = this.name): Promise<void> {
    const target = `${this.name}_r${++this.#targets}`;
    const begun = this.must(`restore of ${snapshot}`, await this.client.restore(collection, snapshot, target));
    if (begun) await this.ended(begun.jobId, target, expected);
  }

  /** A job that must be Completed, and its target right. */
  async ended(jobId: bigint, target: string, expected: Expectation): Promise<void> {
    const { state, reason } = await this.client.restored(jobId, LIMIT_MS);
    this.check(state === 'completed', `restore into ${target} ${state}: ${reason}`);
    if (state === 'completed') await this.compare(target, expected);
    this.must(`drop ${target}`, await this.client.dropCollection(target));
  }

  async compare(collection: string, expected: Expectation): Promise<void> {
    this.must(`load ${collection}`, await this.client.load(collection));
    const rows = this.must(`read ${collection}`, await this.client.rows(collection, TRIES));
    if (rows) for (const difference of differences(rows, expected)) this.problems.push(`${this.name}: ${collection}: ${difference}`);
  }

  async tearDown(): Promise<void> {
    this.must('drop collection', await this.client.dropCollection(this.name));
    const there = this.must('has', await this.client.hasCollection(this.name));
    this.check(there?.value === false, 'it is dropped and there');
  }
}

const done = (outcome: Outcome<unknown>): boolean => outcome.kind === 'done';
const refusedWith = (outcome: Outcome<unknown>, ...codes: number[]): boolean => outcome.kind === 'refused' && codes.includes(outcome.code);
const say = (outcome: Outcome<unknown>): string =>
  outcome.kind === 'refused'
    ? `refused ${outcome.code} ${outcome.reason}`
    : outcome.kind === 'unknown'
      ? `unknown ${outcome.reason}`
      : 'done';

type Story = (race: Race) => Promise<void>;

/** Several creates of one name under a writer while a process is lost or believes what is no longer so. */
function troubled(trouble: (house: RaceHouse, which: number) => Promise<void>): Story {
  return async (race) => {
    for (const which of [0, 1]) {
      const writer = race.writing();
      const snapshot = `s${which}`;
      const watched = race.model.watch();
      const [, ...outcomes] = await Promise.all([
        race.soon(() => trouble(race.house, which), 4 * SPREAD_MS),
        ...[1, 2, 3].map(() => race.soon(() => race.client.createSnapshot(race.name, snapshot, TRIES), 2 * SPREAD_MS)),
      ]);
      const expected = watched();
      const winners = outcomes.filter(done).length;
      race.check(winners <= 1, `${winners} creates of ${snapshot} were done`);
      for (const outcome of outcomes) if (outcome.kind === 'refused') race.check(outcome.code === EXISTS, `a create was ${say(outcome)}`);
      await race.write([2, 4]);
      await writer.stop();
      const there = await race.listed(snapshot);
      race.check(there || winners === 0, `${snapshot} was acknowledged and is not there`);
      if (there) await race.holds(snapshot, expected);
      else race.must('create once more', await race.client.createSnapshot(race.name, snapshot, TRIES));
      await race.compare(race.name, race.model.now());
    }
  };
}

/** Named after what must hold. */
export const races: Readonly<Record<string, Story>> = {
  '50 creates of one name: one is done, 49 hear that it exists': async (race) => {
    const outcomes = await Promise.all(Array.from({ length: 50 }, () => race.soon(() => race.client.createSnapshot(race.name, 's', 1))));
    race.check(outcomes.filter(done).length === 1, `${outcomes.filter(done).length} creates were done`);
    const others = outcomes.filter((outcome) => !done(outcome) && !refusedWith(outcome, EXISTS));
    race.check(others.length === 0, `others were ${others.map(say).join('; ')}`);
    await race.holds('s', race.model.now());
  },

  'create against drop of the collection: the collection is gone, the snapshot with it': async (race) => {
    const [create, drop] = await Promise.all([
      race.soon(() => race.client.createSnapshot(race.name, 's')),
      race.soon(() => race.client.dropCollection(race.name), 5 * SPREAD_MS),
    ]);
    race.must('drop', drop);
    race.check(create.kind !== 'unknown', `create was ${say(create)}`);
    race.saw.add(create.kind);
    const list = await race.client.listSnapshots(race.name);
    race.check(refusedWith(list, NOT_FOUND), `the list of a dropped collection was ${say(list)}`);
    race.must('the name is free', await race.client.createCollection(race.name, 1));
    race.check(!(await race.listed('s')), 'the new collection has the snapshot of the old one');
  },

  'create against drop of the snapshot: it is whole or gone': async (race) => {
    const expected = race.model.now();
    const [create, drop] = await Promise.all([
      race.soon(() => race.client.createSnapshot(race.name, 's')),
      race.soon(() => race.client.dropSnapshot(race.name, 's'), 12 * SPREAD_MS),
    ]);
    race.must('create', create);
    race.must('drop', drop);
    const there = await race.listed('s');
    race.saw.add(there ? 'there' : 'gone');
    if (there) await race.holds('s', expected);
    race.must('drop once more', await race.client.dropSnapshot(race.name, 's'));
    race.check(!(await race.listed('s')), 'it is dropped and listed');
    race.must('create anew', await race.client.createSnapshot(race.name, 's'));
    await race.holds('s', race.model.now());
  },

  'create against drop of a partition: all its rows or none': async (race) => {
    race.must('create partition', await race.client.createPartition(race.name, 'p'));
    const keys = [100, 101, 102, 103, 104, 105];
    await race.write(keys, 'p');
    const full = race.model.now();
    const [create, drop] = await Promise.all([
      race.soon(() => race.client.createSnapshot(race.name, 's'), 12 * SPREAD_MS),
      race.soon(() => race.client.dropPartition(race.name, 'p'), 12 * SPREAD_MS),
    ]);
    race.must('create', create);
    race.must('drop', drop);
    const target = `${race.name}_target`;
    const begun = race.must('restore', await race.client.restore(race.name, 's', target));
    if (!begun) return;
    const { state, reason } = await race.client.restored(begun.jobId, LIMIT_MS);
    race.check(state === 'completed', `restore ${state}: ${reason}`);
    race.must('load', await race.client.load(target));
    const rows = race.must('read', await race.client.rows(target, TRIES)) ?? [];
    const within = rows.filter(({ key }) => keys.includes(key)).length;
    race.saw.add(`${within} rows`);
    race.check(within === 0 || within === keys.length, `${within} of ${keys.length} rows of the partition are in the snapshot`);
    for (const difference of differences(
      rows.filter(({ key }) => !keys.includes(key)),
      new Map([...full].filter(([key]) => !keys.includes(key))),
    ))
      race.problems.push(`${race.name}: ${difference}`);
    race.must('drop target', await race.client.dropCollection(target));
  },

  'create while its collection is being restored: refused with 106 until it is Completed, exact after': async (race) => {
    race.must('create', await race.client.createSnapshot(race.name, 's'));
    const target = `${race.name}_target`;
    const begun = race.must('restore', await race.client.restore(race.name, 's', target));
    if (!begun) return;
    const outcomes = await Promise.all(
      [1, 2, 3, 4].map((i) => race.soon(() => race.client.createSnapshot(target, `t${i}`, 1), 8 * SPREAD_MS)),
    );
    const { state, reason } = await race.client.restored(begun.jobId, LIMIT_MS);
    race.check(state === 'completed', `restore ${state}: ${reason}`);
    for (const [i, outcome] of outcomes.entries()) {
      race.saw.add(outcome.kind);
      race.check(done(outcome) || refusedWith(outcome, RESTORING), `create t${i + 1} was ${say(outcome)}`);
      race.check((await race.listed(`t${i + 1}`, target)) === done(outcome), `t${i + 1} was ${say(outcome)} and the list says otherwise`);
      if (done(outcome)) await race.holds(`t${i + 1}`, race.model.now(), target);
    }
    race.must('drop target', await race.client.dropCollection(target));
  },

  'drop against restore: one of them wins, the other is refused': async (race) => {
    for (let round = 0; round < 3; round++) {
      const snapshot = `s${round}`;
      race.must('create', await race.client.createSnapshot(race.name, snapshot));
      const target = `${race.name}_t${round}`;
      const [restore, drop] = await Promise.all([
        race.soon(() => race.client.restore(race.name, snapshot, target), 2 * SPREAD_MS),
        race.soon(() => race.client.dropSnapshot(race.name, snapshot), 12 * SPREAD_MS),
      ]);
      race.check(done(drop) || refusedWith(drop, PINNED), `drop was ${say(drop)}`);
      race.saw.add(`restore ${restore.kind}`);
      if (restore.kind === 'done') {
        // A drop that was done came after the job: the snapshot's work is over then.
        await race.ended(restore.value.jobId, target, race.model.now());
      } else {
        race.check(done(drop), `both were refused: restore ${say(restore)}, drop ${say(drop)}`);
        race.check(race.must('has', await race.client.hasCollection(target))?.value === false, 'the target of a refused restore is there');
      }
      race.must('drop at the end', await race.client.dropSnapshot(race.name, snapshot));
    }
  },

  'pin against drop: a snapshot that is pinned is not dropped, one that is dropped is not pinned': async (race) => {
    for (let round = 0; round < 3; round++) {
      const snapshot = `s${round}`;
      race.must('create', await race.client.createSnapshot(race.name, snapshot));
      const [pin, drop] = await Promise.all([
        race.soon(() => race.client.pin(race.name, snapshot, 600)),
        race.soon(() => race.client.dropSnapshot(race.name, snapshot)),
      ]);
      race.saw.add(`pin ${pin.kind}`);
      race.check(done(pin) !== done(drop), `pin was ${say(pin)}, drop was ${say(drop)}`);
      if (pin.kind === 'done') {
        race.check(refusedWith(drop, PINNED), `drop was ${say(drop)}`);
        await race.holds(snapshot, race.model.now());
        race.must('unpin', await race.client.unpin(pin.value.pinId));
        race.must('drop', await race.client.dropSnapshot(race.name, snapshot));
      }
    }
  },

  'rename against create: the snapshot is of the collection, whatever its name was': async (race) => {
    let name = race.name;
    for (let round = 0; round < 3; round++) {
      const to = `${race.name}_n${round}`;
      const from = name;
      const [create, rename] = await Promise.all([
        race.soon(() => race.client.createSnapshot(from, `s${round}`)),
        race.soon(() => race.client.rename(from, to)),
      ]);
      race.must('rename', rename);
      name = to;
      race.saw.add(`create ${create.kind}`);
      race.check(done(create) || refusedWith(create, NOT_FOUND), `create was ${say(create)}`);
      race.check((await race.listed(`s${round}`, name)) === done(create), `create was ${say(create)} and the list says otherwise`);
      if (done(create)) await race.holds(`s${round}`, race.model.now(), name);
    }
    race.must('rename back', await race.client.rename(name, race.name));
  },

  'garbage collection against create, restore and drop: nothing that is referred to goes': async (race) => {
    const writer = race.writing();
    let over = false;
    const collector = (async () => {
      while (!over) {
        race.must('gc', await race.client.collectGarbage());
        await race.house.sleep(20);
      }
    })();
    for (let round = 0; round < 3; round++) {
      const watched = race.model.watch();
      race.must('create', await race.client.createSnapshot(race.name, `s${round}`));
      const expected = watched();
      const [flush] = await Promise.all([race.client.flush(race.name), race.client.delete(race.name, [15 + round])]);
      race.must('flush', flush);
      race.model.acknowledged(new Map([[15 + round, 0]]));
      await race.holds(`s${round}`, expected);
      if (round > 0) race.must('drop', await race.client.dropSnapshot(race.name, `s${round - 1}`));
    }
    over = true;
    await Promise.all([collector, writer.stop()]);
    await race.compare(race.name, race.model.now());
  },

  'garbage collection against the end of a pin: kept until then, dropped and collected after': async (race) => {
    race.must('create', await race.client.createSnapshot(race.name, 's'));
    const expected = race.model.now();
    const pins = await Promise.all([1, 2, 3].map((seconds) => race.client.pin(race.name, 's', seconds)));
    for (const pin of pins) race.must('pin', pin);
    await race.write([1, 2, 3]);
    await race.holds('s', expected);
    let drop = await race.client.dropSnapshot(race.name, 's');
    for (let tries = 0; !done(drop) && tries < 100; tries++) {
      race.check(refusedWith(drop, PINNED), `drop was ${say(drop)}`);
      race.must('gc', await race.client.collectGarbage());
      await race.house.sleep(100);
      drop = await race.client.dropSnapshot(race.name, 's');
    }
    race.must('drop once the pins are over', drop);
    race.check(!(await race.listed('s')), 'it is dropped and listed');
    race.must('gc', await race.client.collectGarbage());
    await race.compare(race.name, race.model.now());
  },

  'compaction against create, restore, garbage collection and drop: every snapshot is exact, nothing that is referred to goes': async (
    race,
  ) => {
    const writer = race.writing();
    let over = false;
    const churn = (async () => {
      while (!over) {
        await race.client.flush(race.name);
        race.must('compact', await race.client.compact(race.name));
        race.must('gc', await race.client.collectGarbage());
        await race.house.sleep(10);
      }
    })();
    for (let round = 0; round < 4; round++) {
      const watched = race.model.watch();
      race.must('create', await race.client.createSnapshot(race.name, `s${round}`));
      const expected = watched();
      await race.write([1, 4 + round]);
      await race.holds(`s${round}`, expected);
      if (round > 0) race.must('drop', await race.client.dropSnapshot(race.name, `s${round - 1}`));
    }
    over = true;
    await Promise.all([churn, writer.stop()]);
    await race.compare(race.name, race.model.now());
  },

  'compaction against drop of a partition and of the collection: what is dropped stays so': async (race) => {
    race.must('create partition', await race.client.createPartition(race.name, 'p'));
    for (const first of [100, 110, 120]) {
      await race.write([first, first + 1, first + 2], 'p');
      race.must('flush', await race.client.flush(race.name));
    }
    const [compact, drop] = await Promise.all([
      race.soon(() => race.client.compact(race.name)),
      race.soon(() => race.client.dropPartition(race.name, 'p'), 8 * SPREAD_MS),
    ]);
    race.must('compact', compact);
    race.must('drop', drop);
    const left = new Map([...race.model.now()].filter(([key]) => key < 100));
    await race.compare(race.name, left);
    race.must('compact once more', await race.client.compact(race.name));
    await race.house.sleep(race.house.random() * 10 * SPREAD_MS);
  },

  'compaction against a create that waits for an owner that is deposed: rows replaced after its time are in it': async (race) => {
    for (const which of [0, 1]) {
      const watched = race.model.watch();
      const frozen = race.house.freeze('streaming', which);
      const create = race.client.createSnapshot(race.name, `s${which}`, TRIES);
      await race.house.sleep(2 * SPREAD_MS);
      // Half of the keys: what a compaction makes has rows of before and of after, and lacks those that were replaced.
      const work: Promise<unknown>[] = Array.from({ length: ROWS / 2 }, (_, at) => race.write([2 * at]));
      // On the shard whose owner answers, the new rows are flushed and the old ones compacted away while the other shard is waited for.
      for (let round = 0; round < 8; round++) {
        work.push(race.client.flush(race.name));
        await race.house.sleep(10 * SPREAD_MS);
        work.push(race.client.compact(race.name));
        await race.house.sleep(10 * SPREAD_MS);
      }
      await Promise.all([frozen, ...work]);
      const created = await create;
      const expected = watched();
      if (done(created) || (await race.listed(`s${which}`))) await race.holds(`s${which}`, expected);
      await race.compare(race.name, race.model.now());
    }
  },

  'two coordinators that both believe they lead: one outcome': troubled((house, which) => house.freeze('datacoord', which)),
  'an owner that is deposed in the middle of a create: one outcome, exact': troubled((house, which) => house.freeze('streaming', which)),
  'a coordinator that dies in the middle of a create: one outcome, exact': troubled((house, which) => house.kill('datacoord', which)),
  'an owner that dies in the middle of a create: one outcome, exact': troubled((house, which) => house.kill('streaming', which)),
};

/** Tells one story in a collection of its own: what must not be, in words, and which of its outcomes came to be. */
export async function runRace(
  name: string,
  collection: string,
  house: RaceHouse,
): Promise<{ readonly problems: readonly string[]; readonly saw: ReadonlySet<string> }> {
  const story = races[name];
  if (!story) throw new Error(`no race ${name}`);
  const race = new Race(house, collection);
  await race.setUp();
  await story(race);
  await race.tearDown();
  return race;
}
